package mesh

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// The values that a policy's blocks may have; the fields of the last two are nobody's but the rule's.
var policyValues = map[string][]string{
	"connectionPool":   {`{}`, `{tcp: {maxConnections: 1}}`, `{http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}`},
	"outlierDetection": {`{}`, `{consecutive5xxErrors: 1, interval: 1s}`},
	"loadBalancer":     {`{simple: RANDOM}`, `{consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}}`},
	"tls":              {`{mode: ISTIO_MUTUAL}`},
	"future":           {`{kept: [1, 2.5, null]}`},
	"flag":             {`true`},
}

// drawPolicy gives a policy as YAML; empty: none at all.
func drawPolicy(t *rapid.T, label string, blocks ...string) string {
	if rapid.IntRange(0, 3).Draw(t, label+" absent") == 0 {
		return ""
	}
	var fields []string
	for _, block := range blocks {
		if rapid.Bool().Draw(t, label+" "+block) {
			fields = append(fields, block+": "+rapid.SampledFrom(policyValues[block]).Draw(t, label+" value"))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func typedPolicy(t rapid.TB, text string) *istio.TrafficPolicy {
	if text == "" {
		return nil
	}
	policy := &istio.TrafficPolicy{}
	if err := yaml.Unmarshal([]byte(text), policy); err != nil {
		t.Fatal(err)
	}
	return policy
}

func policyRollout(t rapid.TB, host, v2, v3 string) *v1.Rollout {
	return &v1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews", Namespace: "bookinfo"},
		Spec: v1.RolloutSpec{
			Host: "reviews", DestinationRule: &v1.DestinationRule{TrafficPolicy: typedPolicy(t, host)},
			Versions: []v1.Version{{Name: "v2", TrafficPolicy: typedPolicy(t, v2)}, {Name: "v3", TrafficPolicy: typedPolicy(t, v3)}},
		},
		Status: v1.RolloutStatus{
			DestinationRule: &v1.ManagedDestinationRule{Name: "reviews"},
			Subsets: []v1.Subset{
				{Name: "v2", Labels: map[string]string{"version": "v2"}, Policy: "v2"},
				{Name: "v3", Labels: map[string]string{"version": "v3"}, Policy: "v3"},
			},
		},
	}
}

func ruleWith(t rapid.TB, host, v2, v3 string) *unstructured.Unstructured {
	field := func(policy string) string {
		if policy == "" {
			return ""
		}
		return ", trafficPolicy: " + policy
	}
	text := fmt.Sprintf(`{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: reviews, namespace: bookinfo},
spec: {host: reviews%s, subsets: [{name: v2, labels: {version: v2}%s}, {name: v3, labels: {version: v3}%s}]}}`, field(host), field(v2), field(v3))
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

// converge saves and renders until nothing changes, as the shell does.
func converge(t rapid.TB, r *v1.Rollout, rule *unstructured.Unstructured) *unstructured.Unstructured {
	for range 4 {
		saved := SavePolicies(r, rule)
		settled := cmp.Equal(saved, r.Status.DestinationRule.Policies)
		r.Status.DestinationRule.Policies = saved
		want, problem := DestinationRule(r, rule, nil)
		if problem != nil {
			t.Fatalf("%s: %s", problem.Reason, problem.Message)
		}
		if settled && sameJSON(want.Object, rule.Object) {
			return rule
		}
		rule = want
	}
	t.Fatalf("does not settle: %v", r.Status.DestinationRule.Policies)
	return nil
}

// TestPoliciesComeAndGo: whatever blocks the Rollout gives, one after the other, they stand in the rule while it gives them, all
// else stays, and in the end everything is as it was found.
func TestPoliciesComeAndGo(t *testing.T) {
	given, all := []string{"connectionPool", "outlierDetection", "loadBalancer"}, []string{"connectionPool", "outlierDetection", "loadBalancer", "tls", "future", "flag"}
	rapid.Check(t, func(t *rapid.T) {
		found := ruleWith(t, drawPolicy(t, "found host", all...), drawPolicy(t, "found v2", all...), drawPolicy(t, "found v3", all...))
		rule, r := found, policyRollout(t, "", "", "")
		for range rapid.IntRange(1, 3).Draw(t, "edits") {
			next := policyRollout(t, drawPolicy(t, "host", given...), drawPolicy(t, "v2", given...), drawPolicy(t, "v3", given...))
			next.Status = r.Status
			r = next
			rule = converge(t, r, rule)
			for subset, policy := range givenPolicies(r) {
				checkPolicy(t, subset, policy, policyHolder(found, subset), policyHolder(rule, subset))
			}
		}
		if restored := RestorePolicies(r, rule); !sameJSON(restored.Object, found.Object) {
			t.Fatalf("restored %v, found was %v", restored.Object["spec"], found.Object["spec"])
		}
		last := policyRollout(t, "", "", "")
		last.Status = r.Status
		if rule = converge(t, last, rule); !sameJSON(rule.Object, found.Object) || last.Status.DestinationRule.Policies != nil {
			t.Fatalf("left %v and %v, found was %v", rule.Object["spec"], last.Status.DestinationRule.Policies, found.Object["spec"])
		}
	})
}

func checkPolicy(t *rapid.T, subset string, given, found, holder object) {
	policy, before := child(holder, policyField), child(found, policyField)
	for block, value := range given {
		if !sameJSON(policy[block], value) {
			t.Fatalf("subset %q: %s is %v, given %v", subset, block, policy[block], value)
		}
	}
	for block, value := range before {
		if _, mine := given[block]; !mine && !sameJSON(policy[block], value) {
			t.Fatalf("subset %q: %s became %v, was %v", subset, block, policy[block], value)
		}
	}
}

func TestPolicyThatIsNotSavedIsNotWritten(t *testing.T) {
	r := policyRollout(t, `{connectionPool: {tcp: {maxConnections: 1}}}`, "", "")
	found := ruleWith(t, `{connectionPool: {tcp: {maxConnections: 9}}}`, "", "")
	want, problem := DestinationRule(r, found, nil)
	if problem != nil || !sameJSON(want.Object, found.Object) {
		t.Errorf("wrote %v before status knew what was there, %v", want.Object, problem)
	}
}

func TestPoliciesTooLargeToKeep(t *testing.T) {
	r := policyRollout(t, `{connectionPool: {}}`, "", "")
	found := ruleWith(t, `{connectionPool: {vendor: `+strings.Repeat("x", maxFoundPolicies)+`}}`, "", "")
	if saved := SavePolicies(r, found); saved != nil {
		t.Errorf("saved %v", saved)
	}
	_, problem := DestinationRule(r, found, nil)
	if problem == nil || problem.Reason != v1.ReasonInvalidSpec || !strings.Contains(problem.Message, "DestinationRule reviews") {
		t.Errorf("problem %v", problem)
	}
}

func TestSubsetThatIsGoneIsForgotten(t *testing.T) {
	r := policyRollout(t, "", "", "")
	r.Status.DestinationRule.Policies = []v1.ManagedPolicy{{Subset: "v9", Blocks: []string{"connectionPool"}}}
	if saved := SavePolicies(r, ruleWith(t, "", "", "")); saved != nil {
		t.Errorf("kept %v", saved)
	}
}

func TestCircuitBreakers(t *testing.T) {
	rule := ruleWith(t, `{loadBalancer: {simple: RANDOM}}`, `{outlierDetection: {}}`, `{portLevelSettings: [{port: {number: 80}, connectionPool: {}}]}`)
	want := map[string]bool{"": false, "v2": true, "v3": true}
	if diff := cmp.Diff(want, CircuitBreakers(rule)); diff != "" {
		t.Error(diff)
	}
	if got := CircuitBreakers(nil); len(got) != 0 {
		t.Errorf("no rule: %v", got)
	}
}

func TestSamePolicies(t *testing.T) {
	a, b := ruleWith(t, "", "{tls: {}}", "{flag: true}"), ruleWith(t, "", "{tls: {}}", "{flag: false}")
	if !SamePolicies(a, b, "v2") || SamePolicies(a, b, "v3") || SamePolicies(nil, b, "v3") || !SamePolicies(nil, b) {
		t.Error("policies of the host and of the named subsets, and those alone, are compared")
	}
}
