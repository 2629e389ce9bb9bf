#!/bin/bash
# Runbook 1 as an engineer types it, without thinking in between. Endpoint and names come from the environment; the files
# that the runbook edits lie ready in the current folder. What it gets wrong is changed as little as possible:
#   - `regami-api:LATEST` is no task definition; the family alone means the latest one.
#   - a batch that leaves two PRIMARY record sets is refused, so failover-to-secondary.json changes both.
#   - `aws logs tail` is a command of AWS CLI 2 only, and --follow would never end.
# No gate looks at what the commands answer: ReplicaLag is no field of DescribeDBInstances and prints null.
set -euo pipefail

# AWS CLI 1 takes RDS in us-east-1 past AWS_ENDPOINT_URL, to the real one (awscli/customizations/overridesslcommonname.py).
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }

# 1. Verify primary database status
aws rds describe-db-instances \
  --db-instance-identifier "$PRIMARY_DB" \
  --region "$PRIMARY_REGION" \
  --query 'DBInstances[0].DBInstanceStatus'

# 2. Check read replica health
aws rds describe-db-instances \
  --db-instance-identifier "$REPLICA_DB" \
  --region "$STANDBY_REGION" \
  --query 'DBInstances[0].[DBInstanceStatus,ReplicationSourceIdentifier]'
aws rds describe-db-instances \
  --db-instance-identifier "$REPLICA_DB" \
  --region "$STANDBY_REGION" \
  --query 'DBInstances[0].ReplicaLag'

# 3. Pause application
aws ecs update-service \
  --cluster "$PRIMARY_CLUSTER" \
  --service "$PRIMARY_SERVICE" \
  --desired-count 0 \
  --region "$PRIMARY_REGION"

# 4. Promote read replica
aws rds promote-read-replica \
  --db-instance-identifier "$REPLICA_DB" \
  --backup-retention-period 7 \
  --region "$STANDBY_REGION"
aws rds wait db-instance-available \
  --db-instance-identifier "$REPLICA_DB" \
  --region "$STANDBY_REGION"

# 5. Update application configuration
sed -i "s#postgresql://regami@[^/]*/#postgresql://regami@$DB_HOST:$DB_PORT/#" task-definition.json
aws ecs register-task-definition \
  --cli-input-json file://task-definition.json \
  --region "$STANDBY_REGION"

# 6. Start application in secondary region
aws ecs update-service \
  --cluster "$STANDBY_CLUSTER" \
  --service "$STANDBY_SERVICE" \
  --desired-count 2 \
  --task-definition "$TASK_FAMILY" \
  --region "$STANDBY_REGION"
aws ecs wait services-stable \
  --cluster "$STANDBY_CLUSTER" \
  --services "$STANDBY_SERVICE" \
  --region "$STANDBY_REGION"

# 7. Update DNS
aws route53 change-resource-record-sets \
  --hosted-zone-id "$HOSTED_ZONE_ID" \
  --change-batch file://failover-to-secondary.json

# 8. Verify application. The resolver of this machine does not know the sandbox's zone, so curl is told the address.
alb=(--connect-to "::$STANDBY_ALB_ADDRESS:")
curl -sv "${alb[@]}" "$PUBLIC_URL/health?check=db"
curl -s "${alb[@]}" -X POST "$PUBLIC_URL/v1/auth/login" \
  -H "Content-Type: application/json" \
  -d '{"email":"test@example.com","password":"test"}'
aws logs filter-log-events --log-group-name "$LOG_GROUP" --region "$STANDBY_REGION"
