package mesh

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

func parseMatches(t testing.TB, text string) []object {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var list any
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return objects(list)
}

func TestAndMatches(t *testing.T) {
	for name, tc := range map[string]struct{ step, route, want, conflict string }{
		"route without match": {
			step: `[{headers: {u: {exact: j}}}]`, route: `[]`, want: `[{headers: {u: {exact: j}}}]`,
		},
		"different fields stand side by side": {
			step:  `[{headers: {u: {exact: j}}}]`,
			route: `[{uri: {prefix: /a}, headers: {x: {regex: "1+"}}, unknown: 1}]`,
			want:  `[{uri: {prefix: /a}, headers: {u: {exact: j}, x: {regex: "1+"}}, unknown: 1}]`,
		},
		"each pair": {
			step:  `[{headers: {u: {exact: j}}}, {headers: {u: {exact: k}}}]`,
			route: `[{uri: {prefix: /a}}, {uri: {prefix: /b}}]`,
			want: `[{headers: {u: {exact: j}}, uri: {prefix: /a}}, {headers: {u: {exact: j}}, uri: {prefix: /b}},
			        {headers: {u: {exact: k}}, uri: {prefix: /a}}, {headers: {u: {exact: k}}, uri: {prefix: /b}}]`,
		},
		"same pair once": {
			step: `[{method: {exact: GET}}, {method: {exact: GET}}]`, route: `[{}]`, want: `[{method: {exact: GET}}]`,
		},
		"exact beats prefix":        {step: `[{uri: {exact: /a/b}}]`, route: `[{uri: {prefix: /a}}]`, want: `[{uri: {exact: /a/b}}]`},
		"exact beats regex":         {step: `[{uri: {regex: "/a.*"}}]`, route: `[{uri: {exact: /ab}}]`, want: `[{uri: {exact: /ab}}]`},
		"regexes match the whole":   {step: `[{uri: {regex: "/a"}}]`, route: `[{uri: {exact: /ab}}]`, want: `[]`},
		"longer prefix wins, left":  {step: `[{uri: {prefix: /a/b}}]`, route: `[{uri: {prefix: /a}}]`, want: `[{uri: {prefix: /a/b}}]`},
		"longer prefix wins, right": {step: `[{uri: {prefix: /a}}]`, route: `[{uri: {prefix: /a/b}}]`, want: `[{uri: {prefix: /a/b}}]`},
		"prefixes apart":            {step: `[{uri: {prefix: /a}}]`, route: `[{uri: {prefix: /b}}, {uri: {prefix: /a}}]`, want: `[{uri: {prefix: /a}}]`},
		"exacts apart":              {step: `[{method: {exact: GET}}]`, route: `[{method: {exact: PUT}}]`, want: `[]`},
		"equal regexes":             {step: `[{uri: {regex: "a+"}}]`, route: `[{uri: {regex: "a+"}}]`, want: `[{uri: {regex: "a+"}}]`},
		"two regexes":               {step: `[{uri: {regex: "a+"}}]`, route: `[{uri: {regex: "b+"}}]`, conflict: `uri: regex "a+" and regex "b+"`},
		"regex and prefix":          {step: `[{headers: {u: {regex: "[ab]+"}}}]`, route: `[{headers: {u: {prefix: a}}}]`, conflict: `headers: u: regex "[ab]+" and prefix "a"`},
		"regex inside a prefix":     {step: `[{uri: {regex: "/ab+"}}]`, route: `[{uri: {prefix: /}}]`, want: `[{uri: {regex: "/ab+"}}]`},
		"prefix around a regex":     {step: `[{uri: {prefix: /a}}]`, route: `[{uri: {regex: "/ab+"}}]`, want: `[{uri: {regex: "/ab+"}}]`},
		"regex apart from a prefix": {step: `[{uri: {prefix: /b}}]`, route: `[{uri: {regex: "/ab+"}}]`, want: `[]`},
		"prefix longer than what a regex begins with": {
			step: `[{uri: {prefix: /ab}}]`, route: `[{uri: {regex: "/a.*"}}]`, conflict: `uri: prefix "/ab" and regex "/a.*"`,
		},
		"broken regex and prefix": {step: `[{uri: {prefix: /}}]`, route: `[{uri: {regex: "("}}]`, conflict: `uri: prefix "/" and regex "("`},
		"a claim may be a list": {
			step: `[{headers: {"@request.auth.claims.groups": {exact: a}}}]`, route: `[{headers: {"@request.auth.claims.groups": {exact: b}}}]`,
			conflict: "headers: @request.auth.claims.groups: two different values of a claim, which may be a list",
		},
		"equal claims": {
			step: `[{headers: {"@request.auth.claims.sub": {exact: a}}}]`, route: `[{headers: {"@request.auth.claims.sub": {exact: a}, u: {}}}]`,
			want: `[{headers: {"@request.auth.claims.sub": {exact: a}, u: {}}}]`,
		},
		"values that restrict nothing": {
			step: `[{port: 0, sourceNamespace: "", uri: null, sourceLabels: {}, name: ""}]`, route: `[{port: 80, gateways: [a], uri: {prefix: /}}]`,
			want: `[{port: 80, gateways: [a], uri: {prefix: /}, name: ""}]`,
		},
		"gateways of another namespace": {step: `[{gateways: [a.other.svc.cluster.local]}]`, route: `[{gateways: [a]}, {gateways: [other/a]}]`, want: `[{gateways: [other/a]}]`},
		"broken regex":                  {step: `[{uri: {regex: "("}}]`, route: `[{uri: {exact: a}}]`, conflict: "uri: regex \"(\" can not be read: error parsing regexp: missing closing ): `^(?:()$`"},
		"form from the future":          {step: `[{uri: {suffix: a}}]`, route: `[{uri: {exact: ba}}]`, conflict: `uri: exact "ba" and a form that is not known`},
		"presence is implied, left":     {step: `[{headers: {u: {}}}]`, route: `[{headers: {u: {prefix: a}}}]`, want: `[{headers: {u: {prefix: a}}}]`},
		"presence is implied, right": {
			step: `[{headers: {u: {prefix: a}}}]`, route: `[{headers: {u: {regex: "*"}}}]`, want: `[{headers: {u: {prefix: a}}}]`,
		},
		"ports agree":       {step: `[{port: 80}]`, route: `[{port: 80}]`, want: `[{port: 80}]`},
		"ports differ":      {step: `[{port: 80}]`, route: `[{port: 81}]`, want: `[]`},
		"labels add up":     {step: `[{sourceLabels: {a: "1"}}]`, route: `[{sourceLabels: {b: "2"}}]`, want: `[{sourceLabels: {a: "1", b: "2"}}]`},
		"labels differ":     {step: `[{sourceLabels: {a: "1"}}]`, route: `[{sourceLabels: {a: "2"}}]`, want: `[]`},
		"namespaces differ": {step: `[{sourceNamespace: a}]`, route: `[{sourceNamespace: b}]`, want: `[]`},
		"gateways meet":     {step: `[{gateways: [mesh, a]}]`, route: `[{gateways: [bookinfo/a, b]}]`, want: `[{gateways: [bookinfo/a]}]`},
		"gateways apart":    {step: `[{gateways: [mesh]}]`, route: `[{gateways: [a]}]`, want: `[]`},
		"no gateways, left": {step: `[{gateways: []}]`, route: `[{gateways: [./a]}]`, want: `[{gateways: [bookinfo/a]}]`},
		"no gateways, right": {
			step: `[{gateways: [a]}]`, route: `[{gateways: []}]`, want: `[{gateways: [bookinfo/a]}]`,
		},
		"labels replace the mesh gateway": {
			step: `[{sourceLabels: {v: v3}}]`, route: `[{gateways: [mesh, a]}]`, want: `[{sourceLabels: {v: v3}}]`,
		},
		"labels never come through a gateway": {
			step: `[{sourceNamespace: n}]`, route: `[{gateways: [a]}, {uri: {exact: /}}]`, want: `[{sourceNamespace: n, uri: {exact: /}}]`,
		},
		"the route's name stays": {
			step: `[{name: mine, statPrefix: m, port: 80}]`, route: `[{name: theirs, statPrefix: t}]`, want: `[{name: theirs, statPrefix: t, port: 80}]`,
		},
		"exclusions of other headers": {
			step: `[{withoutHeaders: {a: {exact: "1"}}}]`, route: `[{withoutHeaders: {b: {}}}]`, want: `[{withoutHeaders: {a: {exact: "1"}, b: {}}}]`,
		},
		"absence implies more, left": {
			step: `[{withoutHeaders: {a: {}}}]`, route: `[{withoutHeaders: {a: {exact: "1"}}}]`, want: `[{withoutHeaders: {a: {}}}]`,
		},
		"absence implies more, right": {
			step: `[{withoutHeaders: {a: {exact: "1"}}}]`, route: `[{withoutHeaders: {a: null}}]`, want: `[{withoutHeaders: {a: {}}}]`,
		},
		"two exclusions of one header": {
			step: `[{withoutHeaders: {a: {exact: "1"}}}]`, route: `[{withoutHeaders: {a: {exact: "2"}}}]`,
			conflict: "withoutHeaders: a: two different values to exclude",
		},
		"the wider exclusion wins, left": {
			step: `[{withoutHeaders: {a: {prefix: "1"}}}]`, route: `[{withoutHeaders: {a: {exact: "12"}}}]`, want: `[{withoutHeaders: {a: {prefix: "1"}}}]`,
		},
		"the wider exclusion wins, right": {
			step: `[{withoutHeaders: {a: {regex: "12+"}}}]`, route: `[{withoutHeaders: {a: {prefix: "1"}}}]`, want: `[{withoutHeaders: {a: {prefix: "1"}}}]`,
		},
		"both exclude presence": {
			step: `[{withoutHeaders: {a: {regex: "*"}}}]`, route: `[{withoutHeaders: {a: {}}}]`, want: `[{withoutHeaders: {a: {}}}]`,
		},
		"Istio excludes a missing header with a regex that an empty one meets": {
			step: `[{withoutHeaders: {a: {}}}]`, route: `[{withoutHeaders: {a: {regex: ".*"}}}]`, want: `[]`,
		},
		"absence beside a broken regex": {
			step: `[{withoutHeaders: {a: {}}}]`, route: `[{withoutHeaders: {a: {regex: "("}}}]`,
			conflict: "withoutHeaders: a: regex \"(\" can not be read: error parsing regexp: missing closing ): `^(?:()$`",
		},
		"asked for and absent":            {step: `[{headers: {a: {exact: "1"}}}]`, route: `[{withoutHeaders: {a: {}}}]`, want: `[]`},
		"asked for and excluded":          {step: `[{headers: {a: {exact: "1x"}}}]`, route: `[{withoutHeaders: {a: {prefix: "1"}}}]`, want: `[]`},
		"prefix inside an excluded one":   {step: `[{headers: {a: {prefix: "1x"}}}]`, route: `[{withoutHeaders: {a: {prefix: "1"}}}]`, want: `[]`},
		"asked for and something else is": {step: `[{headers: {a: {exact: "2"}}}]`, route: `[{withoutHeaders: {a: {exact: "1"}}}]`, want: `[{headers: {a: {exact: "2"}}, withoutHeaders: {a: {exact: "1"}}}]`},
		"present but not excluded":        {step: `[{headers: {a: {}}}]`, route: `[{withoutHeaders: {a: {exact: "1"}}}]`, want: `[{headers: {a: {}}, withoutHeaders: {a: {exact: "1"}}}]`},
		"case is ignored in common": {
			step: `[{uri: {prefix: /API}, ignoreUriCase: true}]`, route: `[{uri: {exact: /api/V1}, ignoreUriCase: true}]`,
			want: `[{uri: {exact: /api/v1}, ignoreUriCase: true}]`,
		},
		"case is ignored by the one that has a uri": {
			step: `[{ignoreUriCase: true, method: {exact: GET}}]`, route: `[{uri: {exact: /A}}]`, want: `[{uri: {exact: /A}, method: {exact: GET}}]`,
		},
		"case in dispute": {
			step: `[{uri: {exact: /a}, ignoreUriCase: true}]`, route: `[{uri: {exact: /a}}]`, conflict: "uri: one ignores case and the other does not",
		},
		"a regex has its case whatever the flag says": {
			step: `[{uri: {regex: "/a"}, ignoreUriCase: true}]`, route: `[{uri: {exact: /a}}]`, want: `[{uri: {exact: /a}}]`,
		},
		"case in dispute with a regex": {
			step: `[{uri: {regex: "/a"}, ignoreUriCase: true}]`, route: `[{uri: {exact: /a}, ignoreUriCase: true}]`, conflict: "uri: one ignores case and the other does not",
		},
		"unknown fields agree":    {step: `[{future: {a: 1}}]`, route: `[{future: {a: 1}}]`, want: `[{future: {a: 1}}]`},
		"unknown fields disagree": {step: `[{future: 1}]`, route: `[{future: 2}]`, conflict: "future: both give it, and it is not known how they combine"},
	} {
		t.Run(name, func(t *testing.T) {
			step, route := parseMatches(t, tc.step), parseMatches(t, tc.route)
			got, conflict := andMatches(step, route, "bookinfo")
			if conflict != tc.conflict {
				t.Errorf("conflict %q, want %q", conflict, tc.conflict)
			}
			if tc.conflict == "" {
				if diff := cmp.Diff(parseMatches(t, tc.want), got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
			if diff := cmp.Diff(parseMatches(t, tc.step), step) + cmp.Diff(parseMatches(t, tc.route), route); diff != "" {
				t.Errorf("the inputs were changed:\n%s", diff)
			}
		})
	}
}

// request is what a sidecar or gateway sees, for judging match blocks as istiod and Envoy do.
type request struct {
	uri, method       string
	scheme, authority string
	headers, query    map[string]string
	port              int64
	// gateway that receives it, or mesh; labels and namespace of the sidecar that sends it.
	gateway   string
	labels    map[string]string
	namespace string
}

func (q request) meetsAny(blocks []object) bool {
	return len(blocks) == 0 || slices.ContainsFunc(blocks, q.meets)
}

func (q request) meets(m object) bool {
	if gateways, _ := m["gateways"].([]any); len(gateways) > 0 {
		if !slices.ContainsFunc(gateways, func(g any) bool { return strings.TrimPrefix(g.(string), "bookinfo/") == q.gateway }) {
			return false
		}
	} else {
		for k, v := range child(m, "sourceLabels") {
			if q.labels[k] != v {
				return false
			}
		}
		if n := text(m, "sourceNamespace"); n != "" && n != q.namespace {
			return false
		}
	}
	if port, given := number(m["port"]); given && port != q.port {
		return false
	}
	uri, ignore := q.uri, isSet(m, "ignoreUriCase")
	if u := child(m, "uri"); u != nil && !meetsString(u, uri, true, ignore) {
		return false
	}
	for field, value := range map[string]string{"method": q.method, "scheme": q.scheme, "authority": q.authority} {
		if u := child(m, field); u != nil && !meetsString(u, value, true, false) {
			return false
		}
	}
	for name, v := range child(m, "queryParams") {
		value, present := q.query[name]
		if !meetsString(asObject(v), value, present, false) {
			return false
		}
	}
	for name, v := range child(m, "headers") {
		value, present := q.headers[name]
		if !meetsString(asObject(v), value, present, false) {
			return false
		}
	}
	for name, v := range child(m, "withoutHeaders") {
		value, present := q.headers[name]
		// istiod has a missing header count as an empty one, except beside a check for presence.
		if asksPresence(asObject(v)) && !present {
			continue
		}
		if meetsString(asObject(v), value, true, false) {
			return false
		}
	}
	return true
}

func meetsString(m object, value string, present, ignoreCase bool) bool {
	if len(m) == 0 || m["regex"] == "*" {
		return present
	}
	form, pattern := stringMatch(m)
	if ignoreCase && form != "regex" {
		value, pattern = strings.ToLower(value), strings.ToLower(pattern)
	}
	switch form {
	case "exact":
		return present && value == pattern
	case "prefix":
		return present && strings.HasPrefix(value, pattern)
	}
	return present && regexp.MustCompile(`\A(?:`+pattern+`)\z`).MatchString(value)
}

var words = rapid.SampledFrom([]string{"/", "/a", "/A", "/ab", "/a/b", "GET", "x"})

func genString(t *rapid.T, label string) object {
	switch form := rapid.SampledFrom([]string{"exact", "prefix", "regex", "present"}).Draw(t, label); form {
	case "present":
		return object{}
	case "regex":
		return object{"regex": rapid.SampledFrom([]string{"/a.*", ".*b", "*"}).Draw(t, label+" regex")}
	default:
		return object{form: words.Draw(t, label+" value")}
	}
}

func genURI(t *rapid.T, label string) object {
	form := rapid.SampledFrom([]string{"exact", "prefix", "regex"}).Draw(t, label)
	if form == "regex" {
		return object{"regex": rapid.SampledFrom([]string{"/a.*", "/A", ".*b", "GET|x"}).Draw(t, label+" regex")}
	}
	return object{form: words.Draw(t, label+" value")}
}

func genBlock(t *rapid.T, label string) object {
	m := object{}
	maybe := func(field string, value func() any) {
		if rapid.IntRange(0, 2).Draw(t, label+" has "+field) == 0 {
			m[field] = value()
		}
	}
	maybe("uri", func() any { return genURI(t, label+" uri") })
	maybe("ignoreUriCase", func() any { return rapid.Bool().Draw(t, label+" case") })
	maybe("method", func() any { return genURI(t, label+" method") })
	maybe("scheme", func() any {
		return object{"exact": rapid.SampledFrom([]string{"http", "https"}).Draw(t, label+" scheme")}
	})
	maybe("authority", func() any { return genURI(t, label+" authority") })
	maybe("queryParams", func() any { return object{"q": genString(t, label+" query")} })
	maybe("sourceNamespace", func() any { return rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, label+" namespace") })
	maybe("statPrefix", func() any { return rapid.SampledFrom([]string{"s", "t"}).Draw(t, label+" statPrefix") })
	maybe("headers", func() any { return object{"u": genString(t, label+" header")} })
	maybe("withoutHeaders", func() any { return object{"u": genString(t, label+" without")} })
	maybe("port", func() any { return rapid.Int64Range(80, 81).Draw(t, label+" port") })
	maybe("sourceLabels", func() any { return object{"v": rapid.SampledFrom([]string{"1", "2"}).Draw(t, label+" labels")} })
	maybe("gateways", func() any {
		return rapid.SampledFrom([][]any{{}, {"mesh"}, {"gw"}, {"mesh", "bookinfo/gw"}}).Draw(t, label+" gateways")
	})
	return m
}

func genRequest(t *rapid.T) request {
	q := request{
		uri: words.Draw(t, "uri"), method: words.Draw(t, "method"), headers: map[string]string{},
		port: rapid.Int64Range(80, 81).Draw(t, "port"), gateway: rapid.SampledFrom([]string{"mesh", "gw"}).Draw(t, "gateway"),
		labels: map[string]string{"app": "ingress"}, query: map[string]string{},
		scheme: rapid.SampledFrom([]string{"http", "https"}).Draw(t, "scheme"), authority: words.Draw(t, "authority"),
		namespace: "istio-ingress",
	}
	if rapid.Bool().Draw(t, "header") {
		q.headers["u"] = words.Draw(t, "u")
	}
	if rapid.Bool().Draw(t, "parameter") {
		q.query["q"] = words.Draw(t, "q")
	}
	if q.gateway == meshGateway {
		q.namespace = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
		q.labels = map[string]string{"v": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "label")}
	}
	return q
}

// andMeansBoth: a request meets the joint match exactly if it meets that of the step and that of the route. Where labels or a
// namespace stand beside gateways, which istiod ignores, the joint match may only be narrower.
func andMeansBoth(t *rapid.T) {
	step := []object{genBlock(t, "step"), genBlock(t, "step2")}
	route := []object{genBlock(t, "route"), genBlock(t, "route2")}
	both, conflict := andMatches(step, route, "bookinfo")
	if conflict != "" {
		t.Skip("can not be joined: " + conflict)
	}
	for range 4 {
		q := genRequest(t)
		want := q.meetsAny(step) && q.meetsAny(route)
		got := len(both) > 0 && q.meetsAny(both)
		narrowed := (strings.Contains(fmt.Sprint(step, route), "sourceLabels") || strings.Contains(fmt.Sprint(step, route), "sourceNamespace")) && strings.Contains(fmt.Sprint(step, route), "gateways")
		if got != want && !(narrowed && want) {
			t.Fatalf("%+v meets step and route: %v, the joint match: %v\n step %v\nroute %v\n both %v", q, want, got, step, route, both)
		}
	}
}

func TestAndMeansBoth(t *testing.T) { rapid.Check(t, andMeansBoth) }

// FuzzAndMatch: any two JSON objects give a match or say why not, and their order decides no more than the wording.
func FuzzAndMatch(f *testing.F) {
	f.Add(`{"uri":{"prefix":"/a"},"headers":{"u":{"exact":"j"}}}`, `{"uri":{"exact":"/ab"},"gateways":["mesh"]}`)
	f.Add(`{"sourceLabels":{"v":"1"},"gateways":["gw"]}`, `{"withoutHeaders":{"u":null},"ignoreUriCase":true}`)
	f.Add(`{"uri":[],"headers":{"u":"x"},"port":"80","gateways":{}}`, `{"uri":{},"headers":[],"port":80,"gateways":[1]}`)
	f.Fuzz(func(t *testing.T, left, right string) {
		var a, b object
		if json.Unmarshal([]byte(left), &a) != nil || json.Unmarshal([]byte(right), &b) != nil || a == nil || b == nil {
			t.Skip()
		}
		_, possible, conflict := andMatch(clone(a), clone(b))
		_, possibleToo, conflictToo := andMatch(clone(b), clone(a))
		if (conflict == "") != (conflictToo == "") && possible == possibleToo {
			t.Errorf("%s and %s: %q one way, %q the other", left, right, conflict, conflictToo)
		}
		if possible && conflict != "" {
			t.Errorf("%s and %s: possible and %q", left, right, conflict)
		}
	})
}
