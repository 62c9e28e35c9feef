"""What watches a network in containers, as text for the compose file: Prometheus, Grafana and Jaeger.

They start with the profile ``observability`` alone. Their own files stand beside the compose file, in
``observability/``; which banks there are, and the token that opens their ``/metrics``, Prometheus is told as it starts.
All three are open on this machine only, whatever ``PUBLISH`` says: they show without a password what the banks show
for a token. Each keeps to the guards that banks have, but for the places where it must write.
"""

from __future__ import annotations

from typing import Final

from distribank.network.layout import DEFAULT_BASE_PORT, FIRST

PROFILE: Final = "observability"

_SERVICES: Final = """\
  # With the profile `observability`; docs/observability.md says what to look at.

  prometheus:
    <<: *image
    image: ${{PROMETHEUS_IMAGE:-prom/prometheus:v3.7.3}}
    pull_policy: missing
    container_name: prometheus
    profiles: [{profile}]
    environment: {{DISTRIBANK_METRICS_TOKEN: , BANKS: "${{BANKS:-{fewest}}}"}}
    ports: ["127.0.0.1:9090:9090"]
    volumes:
      - ./observability/prometheus.yml:/etc/prometheus/prometheus.yml:ro
      - ./observability/alerts.yml:/etc/prometheus/alerts.yml:ro
      - prometheus:/prometheus
    entrypoint: [sh, -c]
    command:
      - |
        if [ -z "$$DISTRIBANK_METRICS_TOKEN" ]; then
        echo "set DISTRIBANK_METRICS_TOKEN, such as to the output of openssl rand -hex 32" >&2; exit 2; fi
        umask 077
        printf %s "$$DISTRIBANK_METRICS_TOKEN" > /tmp/metrics-token
        k=1; while [ $$k -le "$$BANKS" ]; do
        printf '%s {{targets: [{targets}], labels: {{bank: "%d"}}}}\\n' - {numbers} $$(({code} + k))
        k=$$((k + 1)); done > /tmp/banks.yml
        exec prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus

  grafana:
    <<: *image
    image: ${{GRAFANA_IMAGE:-grafana/grafana:12.2.1}}
    pull_policy: missing
    container_name: grafana
    profiles: [{profile}]
    tmpfs: [/tmp, /var/lib/grafana]
    environment:
      GF_AUTH_ANONYMOUS_ENABLED: "true" # as a viewer; nobody can sign in
      GF_AUTH_DISABLE_LOGIN_FORM: "true"
      GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: "true"
      GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: /etc/grafana/dashboards/distribank.json
      GF_ANALYTICS_REPORTING_ENABLED: "false"
      GF_ANALYTICS_CHECK_FOR_UPDATES: "false"
      GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES: "false"
      GF_PLUGINS_PREINSTALL_DISABLED: "true"
      GF_PLUGINS_PREINSTALL_AUTO_UPDATE: "false"
      GF_LOG_MODE: console
    ports: ["127.0.0.1:3000:3000"]
    volumes:
      - ./observability/grafana/provisioning:/etc/grafana/provisioning:ro
      - ./observability/grafana/dashboards:/etc/grafana/dashboards:ro

  jaeger: # DISTRIBANK_OTLP_ENDPOINT sends the banks' traces here
    <<: *image
    image: ${{JAEGER_IMAGE:-jaegertracing/jaeger:2.17.0}}
    pull_policy: missing
    container_name: jaeger
    profiles: [{profile}]
    environment: {{JAEGER_LISTEN_HOST: 0.0.0.0}}
    ports: ["127.0.0.1:16686:16686"]

"""

VOLUMES: Final = "  prometheus: # what was measured; the other two remember nothing\n"
"""What stands among the compose file's volumes."""


def observing(fewest: int, replicas: str = "") -> str:
    """The services, for a compose file whose ``BANKS`` is *fewest* where nothing is said. What a bank has counted is
    read from its one process, or from each of its *replicas*, a letter each: behind one address they would mix.
    """
    processes = list(replicas) or [""]
    return _SERVICES.format(
        profile=PROFILE,
        fewest=fewest,
        targets=", ".join(f'"bank-%03d{letter}:%d"' for letter in processes),
        numbers=" ".join([f"$$k $$(({DEFAULT_BASE_PORT - 1} + k))"] * len(processes)),
        code=int(FIRST) - 1,
    )
