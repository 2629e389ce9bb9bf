#!/bin/bash
# Runbook 2, "Emergency Rollback (ALB Listener)", as an engineer types it, without thinking in between: the ARNs that the
# runbook prints as xxx must be found first, and its "Verify Rollback" and the "Verify Health" of runbook 3 come after.
# It forgets the rules, which win over the default action: without the second change users would not be helped. What else it
# gets wrong stays: the other target group is not checked before it gets every request, so that users get 503 until it is.
set -euo pipefail

aws() { command aws --region "$REGION" "$@"; }

# Which listener, and what it forwards to now
balancer=$(aws elbv2 describe-load-balancers \
  --names "$LOAD_BALANCER" \
  --query 'LoadBalancers[0].LoadBalancerArn' \
  --output text)
listener=$(aws elbv2 describe-listeners \
  --load-balancer-arn "$balancer" \
  --query 'Listeners[?Port==`80`].ListenerArn' \
  --output text)
aws elbv2 describe-listeners \
  --listener-arns "$listener" \
  --query 'Listeners[0].DefaultActions'

aws elbv2 describe-rules \
  --listener-arn "$listener"
rule=$(aws elbv2 describe-rules \
  --listener-arn "$listener" \
  --query 'Rules[?!IsDefault].RuleArn' \
  --output text)

# The target group of the version before
blue=$(aws elbv2 describe-target-groups \
  --names "$BLUE_NAME" \
  --query 'TargetGroups[0].TargetGroupArn' \
  --output text)
aws elbv2 describe-target-health \
  --target-group-arn "$blue"

# Manually switch ALB listener to blue target group
aws elbv2 modify-listener \
  --listener-arn "$listener" \
  --default-actions "Type=forward,TargetGroupArn=$blue"
aws elbv2 modify-rule \
  --rule-arn "$rule" \
  --actions "Type=forward,TargetGroupArn=$blue"
aws elbv2 wait target-in-service \
  --target-group-arn "$blue"

# Verify rollback: which tasks run, and do they serve? The resolver of this machine does not know the sandbox's zone, so curl is told the address.
aws elbv2 describe-target-health \
  --target-group-arn "$blue"
tasks=$(aws ecs list-tasks --cluster "$CLUSTER" --service-name "$SERVICE" --query 'taskArns' --output text)
# shellcheck disable=SC2086
aws ecs describe-tasks --cluster "$CLUSTER" --tasks $tasks --query 'tasks[].taskDefinitionArn'
alb=(--connect-to "::$ALB_ADDRESS:")
curl -sf "${alb[@]}" "$PUBLIC_URL/health?check=db"
curl -sf "${alb[@]}" -X POST "$PUBLIC_URL/v1/auth/login" \
  -H "Content-Type: application/json" \
  -d '{"email":"test@example.com","password":"test"}'
aws logs filter-log-events --log-group-name "$LOG_GROUP" --filter-pattern ERROR --query 'length(events)'
