"""The login node's half: job.yaml to spec, spec to plan, plan to script. Never imported by a running job."""
