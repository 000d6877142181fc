"""`fedward appliance`: the agent as a container on a hospital's machine, installed, watched and upgraded from the host.

It runs beside the Docker Engine and never inside the container, which never gets the engine's socket. `engine.py` alone
knows docker; `steps.py` decides, from the journal and what the engine shows, the one thing to do next, and is pure;
`carry.py` does it and asks again. So whatever dies when, the same command run again ends with one agent.
"""
