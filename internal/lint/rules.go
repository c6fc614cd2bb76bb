package lint

// Severity of a rule's findings.
type Severity string

// The severities: with an error a manifest is refused, or a run can not do what it says; a warning is worth a look.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Rule is one thing that is looked for.
type Rule struct {
	ID       string
	Severity Severity
	// Finds says what, and Instead what would be right.
	Finds, Instead string
}

// The rules' names.
const (
	ruleFile          = "file"
	ruleSchema        = "schema"
	ruleUnknownField  = "unknown-field"
	ruleRun           = "run-stops"
	ruleVersion       = "unknown-version"
	ruleSelects       = "labels-select-nothing"
	ruleOverlap       = "labels-overlap"
	ruleSubset        = "unknown-subset"
	ruleObjectTwice   = "object-twice"
	ruleHostTwice     = "host-twice"
	rulePromQL        = "promql"
	ruleQueryType     = "query-type"
	ruleQueryWindow   = "query-window"
	ruleQueryCanary   = "query-canary"
	ruleBlind         = "gate-blind"
	ruleGateTarget    = "gate-target"
	ruleNeverPasses   = "limit-never"
	ruleAlwaysPasses  = "limit-always"
	ruleWindow        = "window-scrapes"
	ruleHold          = "hold-window"
	ruleJump          = "weight-jump"
	ruleUnscoped      = "fault-unscoped"
	ruleFaultShare    = "fault-share"
	ruleIgnoredHosts  = "vs-hosts"
	ruleIgnoredMesh   = "vs-gateways"
	ruleBreakerSignal = "breaker-signal"
)

// Rules is the table of all rules.
func Rules() []Rule {
	return []Rule{
		{ruleFile, Error, "a file or document that can not be read", "YAML or JSON with apiVersion and kind"},
		{ruleSchema, Error, "what the API server refuses of a Rollout or GitSync: types, bounds, and the CRD's CEL rules, also fields that do not work yet", "what the message says"},
		{ruleUnknownField, Error, "a field that the kind does not have", "another spelling, or none"},
		{ruleRun, Error, "what would stop a run before its end, such as a match that can not be joined to a route's", "what the message says; it is the one that status would hold"},
		{ruleVersion, Error, "spec.version or initialVersion that no workload has, where the files hold workloads of the host", "a version that is deployed, or an entry in spec.versions with the labels of its pods"},
		{ruleSelects, Warning, "an entry of spec.versions whose labels select none of the host's workloads", "the labels of the version's pods"},
		{ruleOverlap, Error, "two versions that select the same pods", "labels that tell them apart"},
		{ruleSubset, Error, "a route to the host that names a subset which neither the DestinationRule nor a version has", "a subset that is there"},
		{ruleObjectTwice, Error, "an object that stands twice among the files: GitSync refuses such a revision, and of several that are applied the last would win", "one manifest for each object"},
		{ruleHostTwice, Error, "two Rollouts on one host: the younger would be Stalled", "one Rollout for each host"},
		{rulePromQL, Error, "a query that is no PromQL once its template is filled in", "PromQL; the template knows .Canary, .Stable, .CanaryWorkload, .StableWorkload, .CanaryHost, .StableHost, .Host, .Service, .Namespace and .Window"},
		{ruleQueryType, Error, "a query that yields a range of values or a string", "a query that yields one number"},
		{ruleQueryWindow, Warning, "a query without {{ .Window }}: what it looks at may be older than the step", "[{{ .Window }}] as its range"},
		{ruleQueryCanary, Warning, "a query that does not name the canary: it judges every version", "a matcher with {{ .Canary }} or {{ .CanaryWorkload }}"},
		{ruleBlind, Error, "a query that does not see the step's traffic: the callers do not report mirrored requests, the canary's own proxy does not report those that never left the caller or were faulted there (UO, UH, URX, FI, DI), and nobody reports any to a canary that gets none", `reporter="destination" in mirror steps, reporter="source" for overflow, ejection and faults, useGates without it where the canary gets nothing, or a built-in metric, which picks all that by step`},
		{ruleGateTarget, Error, "a built-in gate for a version that Istio's metrics can not tell apart, or another gate that can not be asked", "a label version on the pods, or a workload"},
		{ruleNeverPasses, Error, "limits that no value is within", "min below max, and shares from 0 to 1 or in percent"},
		{ruleAlwaysPasses, Warning, "a limit of errorRate or successRate that every value is within, such as max 1, which is 100%", `"1%" or "0.01"`},
		{ruleWindow, Warning, "a window shorter than two scrapes: rates in it are empty", "a window of at least twice Prometheus' scrape interval"},
		{ruleHold, Warning, "a hold that is over before the first window of the step's gates is", "a hold of at least the gates' window, or none"},
		{ruleJump, Warning, "steps without a weight between 1 and 99: all users go to the new version at once at the end", "a step with a small weight"},
		{ruleUnscoped, Warning, "a fault for everyone: of that scope, or with a match that every request meets", "a match of testers alone; or scope Everyone and the operator's --allow-unscoped-faults"},
		{ruleFaultShare, Warning, "a delay or abort without a share of requests: Istio injects nothing, and the test tests nothing", "percentage: {value: 100}"},
		{ruleIgnoredHosts, Error, "a VirtualService to be created for sidecars whose hosts leave out the Rollout's: no call to the host obeys it", "the host among hosts"},
		{ruleIgnoredMesh, Warning, "VirtualServices to be created for gateways alone, with none for the mesh beside them: calls inside the mesh do not obey them", "mesh among gateways, or another VirtualService for it"},
		{ruleBreakerSignal, Warning, "a breaker signal that can not occur: Overflow without connectionPool, Ejection without outlierDetection", "the policy that makes it, in the DestinationRule or in the Rollout"},
	}
}

func severityOf(rule string) Severity {
	for _, r := range Rules() {
		if r.ID == rule {
			return r.Severity
		}
	}
	return Error
}
