package mesh

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// andMatches is the pairwise AND of two lists of HTTPMatchRequests, any of which matches. An empty list matches everything.
// Pairs that no request can meet are left out. Both are of one namespace, in which short names of gateways are read. conflict
// tells what one HTTPMatchRequest can not express; empty: nothing.
func andMatches(step, route []object, namespace string) (both []object, conflict string) {
	if len(route) == 0 {
		route = []object{{}}
	}
	if slices.ContainsFunc(step, func(m object) bool { return m["gateways"] != nil }) {
		step, route = withFullGateways(step, namespace), withFullGateways(route, namespace)
	}
	for _, a := range step {
		for _, b := range route {
			pair, possible, conflict := andMatch(a, b)
			if conflict != "" {
				return nil, conflict
			}
			if possible && !slices.ContainsFunc(both, func(o object) bool { return sameJSON(o, pair) }) {
				both = append(both, pair)
			}
		}
	}
	return both, ""
}

// joiner combines one field of two requests.
type joiner func(a, b any) (both any, possible bool, conflict string)

// joiners are the fields of HTTPMatchRequest by how they combine.
var joiners = map[string]joiner{
	"uri": joinStrings, "scheme": joinStrings, "method": joinStrings, "authority": joinStrings,
	"headers": joinHeaders, "queryParams": joinEach(joinStrings), "sourceLabels": joinEach(joinEqual),
	"withoutHeaders": joinEach(joinAbsent), "port": joinEqual, "sourceNamespace": joinEqual,
	"gateways": joinGateways, "name": joinLast, "statPrefix": joinLast,
}

// andMatch is the AND of two requests. possible is false when nothing can meet both.
func andMatch(a, b object) (both object, possible bool, conflict string) {
	a, b, ignoreCase, conflict := settleCase(normal(a), normal(b))
	if conflict != "" {
		return nil, false, conflict
	}
	both = a
	if ignoreCase {
		both["ignoreUriCase"] = true
	}
	for _, field := range slices.Sorted(maps.Keys(b)) {
		mine, given := both[field]
		if !given {
			both[field] = clone(b)[field]
			continue
		}
		join, known := joiners[field]
		if !known {
			join = joinUnknown
		}
		value, possible, conflict := join(mine, b[field])
		if conflict != "" || !possible {
			return nil, false, prefixed(field, conflict)
		}
		both[field] = value
	}
	return both, !contradicts(both) && settleGateways(both), ""
}

// normal is a copy without fields of a value that restricts nothing.
func normal(m object) object {
	m = clone(m)
	maps.DeleteFunc(m, func(field string, value any) bool {
		switch v := value.(type) {
		case nil:
			return true
		case string:
			return v == "" && field == "sourceNamespace"
		case []any:
			return len(v) == 0 && field == "gateways"
		case object:
			return len(v) == 0 && field == "sourceLabels"
		}
		n, given := number(value)
		return given && n == 0 && field == "port"
	})
	return m
}

func prefixed(field, conflict string) string {
	if conflict == "" {
		return ""
	}
	return field + ": " + conflict
}

func joinEqual(a, b any) (any, bool, string) { return a, sameJSON(a, b), "" }

// joinLast keeps the route's value: it only names things.
func joinLast(_, b any) (any, bool, string) { return b, true, "" }

func joinUnknown(a, b any) (any, bool, string) {
	if sameJSON(a, b) {
		return a, true, ""
	}
	return nil, false, "both give it, and it is not known how they combine"
}

// joinEach combines maps: the keys of either, joined where both have one.
func joinEach(join joiner) joiner {
	return func(a, b any) (any, bool, string) {
		left, right := asObject(a), asObject(b)
		both := clone(left)
		for _, key := range slices.Sorted(maps.Keys(right)) {
			mine, given := both[key]
			if !given {
				both[key] = clone(right)[key]
				continue
			}
			value, possible, conflict := join(mine, right[key])
			if conflict != "" || !possible {
				return nil, false, prefixed(key, conflict)
			}
			both[key] = value
		}
		return both, true, ""
	}
}

// claimPrefix begins what looks like a header's name and stands for a claim of a JWT, which may be a list: one of its entries can
// meet one match and another the other.
const claimPrefix = "@request.auth.claims"

func joinHeaders(a, b any) (any, bool, string) {
	left, right := asObject(a), asObject(b)
	for _, name := range slices.Sorted(maps.Keys(left)) {
		other, asked := right[name]
		if asked && strings.HasPrefix(name, claimPrefix) && !sameJSON(left[name], other) {
			return nil, false, name + ": two different values of a claim, which may be a list"
		}
	}
	return joinEach(joinStrings)(a, b)
}

func asObject(value any) object {
	if o, ok := value.(object); ok {
		return o
	}
	return object{}
}

// joinStrings is the AND of two StringMatches. One that asks for presence only is implied by the other.
func joinStrings(a, b any) (any, bool, string) {
	left, right := asObject(a), asObject(b)
	switch {
	case sameJSON(left, right), asksPresence(right):
		return left, true, ""
	case asksPresence(left):
		return right, true, ""
	}
	leftForm, leftText := stringMatch(left)
	rightForm, rightText := stringMatch(right)
	if leftForm == "exact" {
		possible, conflict := satisfies(leftText, rightForm, rightText)
		return left, possible, conflict
	}
	if rightForm == "exact" {
		possible, conflict := satisfies(rightText, leftForm, leftText)
		return right, possible, conflict
	}
	switch {
	case leftForm == "prefix" && begins(right, leftText):
		return right, true, ""
	case rightForm == "prefix" && begins(left, rightText):
		return left, true, ""
	case leftForm == "prefix" && apart(right, leftText), rightForm == "prefix" && apart(left, rightText):
		return nil, false, ""
	}
	return nil, false, fmt.Sprintf("%s %q and %s %q", leftForm, leftText, rightForm, rightText)
}

// begins tells whether all that meets a StringMatch begins with a prefix.
func begins(m object, prefix string) bool {
	start, ok := startOf(m)
	return ok && strings.HasPrefix(start, prefix)
}

// apart tells whether nothing that meets a StringMatch begins with a prefix.
func apart(m object, prefix string) bool {
	start, ok := startOf(m)
	return ok && !strings.HasPrefix(start, prefix) && !strings.HasPrefix(prefix, start)
}

// startOf is what all values that meet a prefix or regex begin with.
func startOf(m object) (start string, ok bool) {
	form, pattern := stringMatch(m)
	if form != "regex" {
		return pattern, form == "prefix"
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", false
	}
	start, _ = re.LiteralPrefix()
	return start, true
}

// asksPresence: no form at all, or the regex "*", which is none in RE2 and which istiod translates to a check for presence.
func asksPresence(o object) bool { return len(o) == 0 || o["regex"] == "*" }

func stringMatch(o object) (form, value string) {
	for _, form := range []string{"exact", "prefix", "regex"} {
		if _, ok := o[form]; ok {
			return form, text(o, form)
		}
	}
	return "unknown", ""
}

// satisfies tells whether an exact value meets another form.
func satisfies(value, form, pattern string) (possible bool, conflict string) {
	switch form {
	case "exact":
		return value == pattern, ""
	case "prefix":
		return strings.HasPrefix(value, pattern), ""
	case "regex":
		// Istio's regexes are RE2 and match the whole value.
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil {
			return false, fmt.Sprintf("regex %q can not be read: %v", pattern, err)
		}
		return re.MatchString(value), ""
	}
	return false, fmt.Sprintf("exact %q and a form that is not known", value)
}

// joinAbsent is "not a and not b" for the same header: the one that excludes all that the other does implies it. Beside anything
// but a check for presence Istio lets a header that is missing count as an empty one.
func joinAbsent(a, b any) (any, bool, string) {
	left, right := asObject(a), asObject(b)
	if asksPresence(right) {
		left, right = right, left
	}
	if asksPresence(left) && !asksPresence(right) {
		form, pattern := stringMatch(right)
		empty, conflict := satisfies("", form, pattern)
		return left, !empty, conflict
	}
	switch {
	case excludes(left, right):
		return left, true, ""
	case excludes(right, left):
		return right, true, ""
	}
	return nil, false, "two different values to exclude"
}

// joinGateways is the intersection. An empty list restricts nothing.
func joinGateways(a, b any) (any, bool, string) {
	left, _ := a.([]any)
	right, _ := b.([]any)
	switch {
	case len(left) == 0:
		return b, true, ""
	case len(right) == 0:
		return a, true, ""
	}
	var both []any
	for _, g := range left {
		if slices.ContainsFunc(right, func(o any) bool { return sameJSON(o, g) }) {
			both = append(both, g)
		}
	}
	return both, len(both) > 0, ""
}

// withFullGateways writes gateways as istiod reads them, so that they can be compared.
func withFullGateways(matches []object, namespace string) []object {
	full := make([]object, 0, len(matches))
	for _, m := range matches {
		m = clone(m)
		gateways, _ := m["gateways"].([]any)
		for i := range gateways {
			if name, ok := gateways[i].(string); ok {
				gateways[i] = gatewayKey(name, namespace)
			}
		}
		full = append(full, m)
	}
	return full
}

// gatewayKey is NAMESPACE/NAME for each of a gateway's spellings: NAME, ./NAME and the old NAME.NAMESPACE[.svc.cluster.local].
func gatewayKey(name, namespace string) string {
	if name == meshGateway {
		return name
	}
	if before, after, qualified := strings.Cut(name, "/"); qualified {
		if before == "." {
			return namespace + "/" + after
		}
		return name
	}
	short, rest, dotted := strings.Cut(name, ".")
	if !dotted {
		return namespace + "/" + name
	}
	other, _, _ := strings.Cut(rest, ".")
	return other + "/" + short
}

// settleCase takes ignoreUriCase out of two requests, and tells whether their joint uri ignores case. Values that are compared
// without case are written in lower case. One that ignores case and one that does not can not be joined.
func settleCase(left, right object) (_, _ object, ignore bool, conflict string) {
	leftIgnores, rightIgnores := ignoresCase(left), ignoresCase(right)
	delete(left, "ignoreUriCase")
	delete(right, "ignoreUriCase")
	leftURI, rightURI := child(left, "uri"), child(right, "uri")
	if len(leftURI) > 0 && len(rightURI) > 0 && leftIgnores != rightIgnores {
		return nil, nil, false, "uri: one ignores case and the other does not"
	}
	if leftIgnores && rightIgnores {
		for _, uri := range []object{leftURI, rightURI} {
			form, value := stringMatch(uri)
			uri[form] = strings.ToLower(value)
		}
	}
	return left, right, leftIgnores || rightIgnores, ""
}

// ignoresCase: Envoy compares regexes with case whatever the flag says.
func ignoresCase(m object) bool {
	form, _ := stringMatch(child(m, "uri"))
	return isSet(m, "ignoreUriCase") && (form == "exact" || form == "prefix")
}

func isSet(o object, name string) bool {
	on, ok := o[name].(bool)
	return ok && on
}

// contradicts tells whether a header is asked for and excluded at once.
func contradicts(m object) bool {
	for name, absent := range child(m, "withoutHeaders") {
		if present, asked := child(m, "headers")[name]; asked && excludes(asObject(absent), asObject(present)) {
			return true
		}
	}
	return false
}

// excludes tells whether all that meets the second meets the first too; what can not be told counts as no.
func excludes(absent, present object) bool {
	if asksPresence(absent) || sameJSON(absent, present) {
		return true
	}
	form, value := stringMatch(present)
	absentForm, pattern := stringMatch(absent)
	switch form {
	case "exact":
		met, conflict := satisfies(value, absentForm, pattern)
		return met && conflict == ""
	case "prefix", "regex":
		return absentForm == "prefix" && begins(present, pattern)
	}
	return false
}

// settleGateways: Istio ignores sourceLabels and sourceNamespace beside gateways, so these are left out where they contain the
// mesh; where they do not, the request comes from no pod, and nothing can meet it: false.
func settleGateways(m object) bool {
	gateways, _ := m["gateways"].([]any)
	byLabels := len(child(m, "sourceLabels")) > 0
	namespace, byNamespace := m["sourceNamespace"]
	byNamespace = byNamespace && namespace != ""
	if len(gateways) == 0 || (!byLabels && !byNamespace) {
		return true
	}
	if !slices.ContainsFunc(gateways, func(g any) bool { return g == meshGateway }) {
		return false
	}
	delete(m, "gateways")
	return true
}
