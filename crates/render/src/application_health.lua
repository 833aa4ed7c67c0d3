-- How an Application tells whether it is healthy, so that a wave waits for the one before.
-- "Progressing" holds a wave back; "Degraded" ends the root's sync, which tries again soon, with the
-- newest commit: whatever is wrong can be mended there.
local os = require("os")
local tries_max, patience_s = 3, 1800
local hs = { status = "Progressing", message = "not looked at yet" }
local status = obj.status
if status == nil or status.health == nil or status.sync == nil then
  return hs
end

-- Right after a change of the Application, its status is about what it was before.
local compared = status.sync.comparedTo
if compared ~= nil and obj.spec ~= nil then
  local wanted = obj.spec.sources or { obj.spec.source }
  local seen = compared.sources or { compared.source }
  local changed = #wanted ~= #seen
  for i, source in ipairs(wanted) do
    for _, key in ipairs({ "repoURL", "chart", "path", "targetRevision" }) do
      changed = changed or source[key] ~= seen[i][key]
    end
  end
  if changed then
    hs.message = "changed, and not looked at yet"
    return hs
  end
end

for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "ComparisonError" or condition.type == "InvalidSpecError"
    or condition.type == "SyncError" then
    hs.status = "Degraded"
    hs.message = condition.message
    return hs
  end
end

local operation = status.operationState or { phase = "Succeeded" }
local phase = operation.phase
local since = operation.startedAt
local tries = operation.retryCount or 0
if phase == "Failed" or phase == "Error" or (phase ~= "Succeeded" and tries >= tries_max) then
  hs.status = "Degraded"
  hs.message = operation.message or "the last sync failed"
  return hs
elseif phase ~= "Succeeded" then
  hs.message = "syncing"
else
  -- What is only too much, and isn't to be pruned, holds nobody back.
  local automated = ((obj.spec or {}).syncPolicy or {}).automated or {}
  local synced = status.sync.status == "Synced"
  if status.sync.status == "OutOfSync" and not automated.prune then
    local resources = status.resources or {}
    synced = #resources > 0
    for _, resource in ipairs(resources) do
      if resource.status == "OutOfSync" and not resource.requiresPruning then
        synced = false
      end
    end
  end
  if not synced then
    hs.message = "not synced"
    return hs
  end
  hs.status = status.health.status or "Progressing"
  hs.message = status.health.message or ""
  local changed = status.health.lastTransitionTime
  since = operation.finishedAt or changed
  if changed ~= nil and since ~= nil and changed > since then
    since = changed
  end
end

-- A container's clock is UTC's, and times of this form are in the order of their letters.
local limit = os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() - patience_s)
if hs.status == "Progressing" and since ~= nil and since < limit then
  hs.status = "Degraded"
  hs.message = hs.message .. " for too long"
end
return hs
