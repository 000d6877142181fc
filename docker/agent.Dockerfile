# The edge agent. Which torch it has, cpu or cuda, is decided by the lock in the context that docker/images.py makes.
# BASE needs Python 3.11 as /usr/bin/python3.11, libstdc++6, zlib1g, tzdata, root as its user, and nothing else.
ARG BASE=fedward-base:bookworm

FROM ${BASE} AS packages
ENV PYTHONPYCACHEPREFIX=/opt/fedward/bytecode PYTHONHASHSEED=0
RUN --mount=type=bind,target=/context ["/usr/bin/python3.11", "/context/install.py", "packages"]

FROM ${BASE} AS program
ENV PYTHONPYCACHEPREFIX=/opt/fedward/bytecode PYTHONHASHSEED=0
RUN --mount=type=bind,target=/context ["/usr/bin/python3.11", "/context/install.py", "program"]

FROM ${BASE}
COPY --from=packages /opt/fedward /opt/fedward
COPY --from=program /opt/fedward /opt/fedward
COPY --from=program --chown=10001:10001 /var/lib/fedward /var/lib/fedward
# The endpoint is for the container's own network: who else reaches it is decided where its port is published.
# The two NVIDIA variables are read by the host's container toolkit, where there is one.
ENV PATH=/opt/fedward/bin:/usr/bin \
    PYTHONPATH=/opt/fedward/app:/opt/fedward/lib:/opt/fedward/tasks \
    PYTHONPYCACHEPREFIX=/opt/fedward/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FEDWARD_HTTP__HOST=0.0.0.0 \
    FEDWARD_HTTP__PORT=9100 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
RUN ["python3.11", "-c", "import torch, pyarrow, PIL, edge_agent.cli"]
WORKDIR /var/lib/fedward
EXPOSE 9100
HEALTHCHECK --interval=3s --timeout=4s --start-period=20s --retries=5 CMD ["python3.11", "-m", "fedward.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fedward"]
CMD ["agent", "run", "--config", "/etc/fedward/site.yaml"]
