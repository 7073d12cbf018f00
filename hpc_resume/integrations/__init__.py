"""Adapters to the frameworks people train with: each file knows one of them and our `Run`, and nothing imports them."""
