#!/bin/bash
# The commands that runbook 4, mangu 1 and 3, and courtcase scenario 2 have for a high error rate, typed one after the other, without
# thinking in between. What they have for a shell in a container, for Redis and for a bucket is left out: the service has none here.
# What it gets wrong stays: nothing is compared with what is usual, and a person has to see what belongs together.
set -euo pipefail

# AWS CLI 1 takes RDS in us-east-1 past AWS_ENDPOINT_URL, to the real one (awscli/customizations/overridesslcommonname.py).
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" --region "$REGION" "$@"; }
ago() { date -u -d "$1 minutes ago" +%Y-%m-%dT%H:%M:%S; }
statistics() { # namespace, metric, statistics, minutes, dimensions...
  aws cloudwatch get-metric-statistics --namespace "$1" --metric-name "$2" --statistics $3 \
    --start-time "$(ago "$4")" --end-time "$(date -u +%Y-%m-%dT%H:%M:%S)" --period 300 --dimensions "${@:5}"
}

# Mangu 1: overall health, alarms, recent deployments. The resolver of this machine does not know the sandbox's zone.
curl -s --connect-to "::$ALB_ADDRESS:" "$PUBLIC_URL/health?check=db" || true
aws cloudwatch describe-alarms --state-value ALARM
aws ecs describe-services --cluster "$CLUSTER" --services "$SERVICE" --query 'services[0].[deployments,events[0:5]]'

# 1. Check Current Error Rate
statistics AWS/ApplicationELB HTTPCode_Target_5XX_Count Sum 30 "Name=LoadBalancer,Value=$LOAD_BALANCER"

# Mangu 3.4: how long it takes
statistics AWS/ApplicationELB TargetResponseTime "Average Maximum" 60 "Name=LoadBalancer,Value=$LOAD_BALANCER"

# 2. Check Application Logs
aws logs filter-log-events --log-group-name "$LOG_GROUP" --start-time "$(date -d '1 hour ago' +%s)000" \
  --filter-pattern '"500" "POST"'
aws logs filter-log-events --log-group-name "$LOG_GROUP" --start-time "$(date -d '30 minutes ago' +%s)000" \
  --filter-pattern '?ERROR ?Exception'

# 4. Check Resource Utilization
for metric in CPUUtilization MemoryUtilization; do
  statistics AWS/ECS "$metric" "Average Maximum" 60 "Name=ClusterName,Value=$CLUSTER" "Name=ServiceName,Value=$SERVICE"
done

# 5. Check External Dependencies: the database
aws rds describe-db-instances --db-instance-identifier "$DB_INSTANCE" --query 'DBInstances[0].DBInstanceStatus'
aws rds describe-events --source-identifier "$DB_INSTANCE" --source-type db-instance --duration 60
statistics AWS/RDS DatabaseConnections "Average Maximum" 60 "Name=DBInstanceIdentifier,Value=$DB_INSTANCE"

# Courtcase scenarios 1 and 2: tasks, their failures, targets, and what was deployed before
aws ecs list-tasks --cluster "$CLUSTER" --service-name "$SERVICE" --desired-status STOPPED
aws elbv2 describe-target-health --target-group-arn "$TARGET_GROUP_ARN"
aws ecs list-task-definitions --family-prefix "$FAMILY" --sort DESC --max-items 5
