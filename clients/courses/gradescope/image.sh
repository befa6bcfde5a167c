#!/bin/sh
# Gradescope runs this once, as root, when it builds the image: a Debian or Ubuntu. It installs what
# the grader and the students' programs need. For more languages, add their packages:
#
#   golang-go   rustc   default-jdk-headless   nodejs
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends python3 make gcc g++ libc6-dev
# The servers run as this user, who can write neither the results nor the grader.
id student >/dev/null 2>&1 || useradd --create-home student
