#!/usr/bin/env bash
# What an engineer who knows PostgreSQL types: one statement that ends them, and looks until they are gone.
set -euo pipefail
"$PSQL" --quiet --no-psqlrc --set ON_ERROR_STOP=1 <<'SQL'
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'regami-reports' AND state = 'idle in transaction';
DO $$ BEGIN
  WHILE EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'regami-reports') LOOP
    PERFORM pg_sleep(0.02), pg_stat_clear_snapshot();
  END LOOP;
END $$;
SQL
