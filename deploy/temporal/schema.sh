#!/bin/sh
# Creates or upgrades the schemas of Temporal's own databases.
set -eu
SQL_PASSWORD=$(cat /run/secrets/temporal_db_password)
export SQL_PASSWORD

schema() {
    database=$1 directory=$2
    tool() {
        temporal-sql-tool --plugin postgres12 --ep temporal-db --port 5432 --user temporal --db "$database" "$@"
    }
    tool create-database
    tool setup-schema -v 0.0
    tool update-schema --schema-dir "/etc/temporal/schema/postgresql/v12/$directory/versioned"
}

schema temporal temporal
schema temporal_visibility visibility
