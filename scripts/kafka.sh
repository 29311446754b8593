#!/usr/bin/env bash
# Fetches Apache Kafka's broker from Maven Central into .tools/kafka, for the
# tests that start one (internal/kafka/kafkatest). About 45 MB, once. With
# --print it only says where that is.
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.1.0
home=$PWD/.tools/kafka/$version

if [ "${1:-}" = --print ]; then
    printf '%s\n' "$home"
    exit
fi
[ -d "$home" ] && exit
printf 'Fetching Apache Kafka %s into .tools/kafka (once)\n' "$version"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rollcall</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
POM
mkdir -p "$(dirname "$home")"
# Beside its place first, then moved: an interrupted fetch leaves nothing half.
partial=$(mktemp -d "$home.XXXXXX")
trap 'rm -rf "$work" "$partial"' EXIT
mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$partial"
chmod 755 "$partial"
# Another run may have been quicker.
[ -d "$home" ] || mv "$partial" "$home"
