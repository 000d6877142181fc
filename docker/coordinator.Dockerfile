# The coordinator: no torch. BASE as for the agent.
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
ENV PATH=/opt/fedward/bin:/usr/bin \
    PYTHONPATH=/opt/fedward/app:/opt/fedward/lib \
    PYTHONPYCACHEPREFIX=/opt/fedward/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FEDWARD_HTTP__HOST=0.0.0.0 \
    FEDWARD_HTTP__PORT=8080
USER 10001:10001
RUN ["python3.11", "-c", "import coordinator.cli"]
WORKDIR /var/lib/fedward
EXPOSE 8080
HEALTHCHECK --interval=3s --timeout=4s --start-period=20s --retries=5 CMD ["python3.11", "-m", "fedward.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fedward"]
CMD ["coordinator", "run", "--config", "/etc/fedward/federation.yaml"]
