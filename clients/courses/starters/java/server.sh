#!/bin/sh
exec java -Djava.net.preferIPv4Stack=true -XX:TieredStopAtLevel=1 -cp "$(dirname "$0")" Server "$@"
