-- Argo CD's health of a BlockchainNetwork, ConsensusGroup or ValidatorNode, from the conditions that the operator keeps.
-- Without it Argo CD calls every custom resource healthy at once.
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not seen this generation yet" }
end
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
local function says(kind, value)
  return found[kind] ~= nil and found[kind].status == value
end
local function answer(health, kind)
  return { status = health, message = found[kind].reason .. ": " .. (found[kind].message or "") }
end
if says("Stalled", "True") then
  return answer("Degraded", "Stalled")
end
if found["Reconciling"] ~= nil and found["Reconciling"].reason == "Paused" then
  return answer("Suspended", "Reconciling")
end
if says("Reconciling", "True") then
  return answer("Progressing", "Reconciling")
end
if says("Ready", "True") then
  return answer("Healthy", "Ready")
end
-- A chain without a quorum is an outage; a node that catches up, or a chain that starts, is on its way.
if says("Available", "False") and found["Available"].reason ~= "NotStarted" then
  return answer("Degraded", "Available")
end
if found["Ready"] ~= nil then
  return answer(says("Ready", "Unknown") and "Unknown" or "Progressing", "Ready")
end
return { status = "Progressing", message = "the operator has not said anything yet" }
