#!/bin/sh
# Stands in for the agent's program in an image, where what matters is how a container is handled. MODE says how it fails.
STATE=/var/lib/fedward
case "$2" in
doctor)
    if [ "$MODE" = refuse ]; then
        echo '[{"name": "tcp", "verdict": "failed", "found": "nobody answers", "remedy": "open the port"}]'
        exit 1
    fi
    echo '[{"name": "tasks", "verdict": "ok", "found": "all there", "remedy": ""}]'
    ;;
enroll)
    mkdir -p $STATE/identity
    cp "$6" $STATE/identity/token
    [ "$7" = --request-out ] && echo "a request" > "$8"
    [ "$7" = --answer ] && cp "$8" $STATE/identity/answer
    echo "fingerprint of this hospital's key: 84b9-608e"
    ;;
status) echo "held version 3" ;;
run)
    echo "start of MODE=$MODE, proxy $https_proxy"
    mkdir -p $STATE/outbox $STATE/egress
    [ -f $STATE/outbox/1.offer ] || echo "an update that took 15 hours" > $STATE/outbox/1.offer
    echo "$MODE" >> $STATE/egress/log
    echo "$MODE" >> $STATE/starts
    case "$MODE" in
    end) exit 7 ;;
    hang | sick) rm -r $STATE/outbox ;;
    *) touch /tmp/alive ;;
    esac
    trap 'echo "$MODE" >> $STATE/saved; exit 0' TERM
    while :; do sleep 0.05; done
    ;;
esac
