#!/bin/sh
# Java starts sooner with less optimization. With a small heap and a simple collector its memory is
# what the server needs, and not what was needed once.
exec java -Djava.net.preferIPv4Stack=true -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xms16m \
    -cp "$(dirname "$0")" Server "$@"
