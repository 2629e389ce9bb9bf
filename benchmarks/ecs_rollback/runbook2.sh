#!/bin/bash
# Runbook 2, "Quick Rollback (ECS)", as an engineer types it, without thinking in between. Names and the revision that is
# known to be good come from the environment. `watch` looks every 2 s; a person would end it at the first look that shows
# one deployment, which is complete.
set -euo pipefail

aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }

# 1. Identify previous task definition
aws ecs list-task-definitions \
  --family-prefix "$TASK_FAMILY" \
  --sort DESC \
  --max-items 5 \
  --region "$REGION"

# 2. Rollback to previous version
aws ecs update-service \
  --cluster "$CLUSTER" \
  --service "$SERVICE" \
  --task-definition "$GOOD_REVISION" \
  --force-new-deployment \
  --region "$REGION"
while true; do
  seen=$(aws ecs describe-services \
    --cluster "$CLUSTER" \
    --services "$SERVICE" \
    --region "$REGION" \
    --query "services[0].[deployments,events[0:3]]")
  echo "$seen"
  [ "$(grep -c rolloutState\" <<<"$seen")" != 1 ] || ! grep -q '"rolloutState": "COMPLETED"' <<<"$seen" || break
  sleep 2
done

# 3. Verify rollback
task=$(aws ecs list-tasks \
  --cluster "$CLUSTER" \
  --service-name "$SERVICE" \
  --region "$REGION" \
  --query 'taskArns[0]' \
  --output text)
aws ecs describe-tasks \
  --cluster "$CLUSTER" \
  --tasks "$task" \
  --region "$REGION" \
  --query 'tasks[0].taskDefinitionArn'
# The resolver of this machine does not know the sandbox's zone, so curl is told the address.
curl -s --connect-to "::$ALB_ADDRESS:" "$PUBLIC_URL/health?check=db"
