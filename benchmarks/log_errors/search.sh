#!/bin/bash
# Regami runbook 4 and mangu 3.4, "Check error logs", with the counting that a person does by eye.
set -euo pipefail

aws logs filter-log-events \
  --endpoint-url "$AWS_ENDPOINT_URL" \
  --region us-east-1 \
  --log-group-name "$LOG_GROUP" \
  --start-time "$(date -d "$MINUTES minutes ago" +%s)000" \
  --filter-pattern '?ERROR ?Exception ?FATAL ?CRITICAL' \
  --query 'events[].[message]' \
  --output text |
  sed 's/[0-9]\+/N/g' | sort | uniq -c | sort -rn | head
