package simulation

import (
	"fmt"
	"strings"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

// elsewherePrefix begins the Services that versions have of their own: reviews-at-v2.
const elsewherePrefix = "reviews-at-"

// place is by what the oracle tells a version in routes: its subset, or its own host.
func place(t v1.Target) string {
	if t.Host != "" {
		return t.Host
	}
	return t.Subset
}

func isElsewhere(place string) bool { return strings.HasPrefix(place, elsewherePrefix) }

// drawElsewhere gives some of the versions that come after v1 Services of their own.
func (w *world) drawElsewhere(s *setting) {
	if w.rng.IntN(5) > 0 {
		return
	}
	for _, name := range []string{"v2", "v3"} {
		if w.rng.IntN(3) == 0 {
			continue
		}
		d := &v1.Destination{Host: elsewherePrefix + name}
		if w.rng.IntN(2) == 0 {
			d.Port = &istio.PortSelector{Number: 9090}
		}
		s.spec.Versions = append(s.spec.Versions, v1.Version{Name: name, Destination: d})
		s.elsewhere = true
	}
}

func (w *world) addElsewhere(s *setting) {
	for _, v := range s.spec.Versions {
		if v.Destination != nil {
			w.add("cluster", fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {selector: {app: reviews, version: %s}, ports: [{name: http, port: 9090}]}}`,
				v.Destination.Host, v.Name))
		}
	}
}

// withoutEnds takes from stripped routes the destinations that lead to a version's own host.
func withoutEnds(stripped map[string]any) {
	spec, _ := stripped["spec"].(map[string]any)
	for _, list := range routeLists {
		routes, _ := spec[list].([]any)
		for _, r := range routes {
			route, _ := r.(map[string]any)
			if view := viewRoute(route); view.managed() {
				delete(route["route"].([]any)[0].(map[string]any), "destination")
			}
		}
	}
}

// checkForm: once a subset serves again, the route's destination is spelled as it was found.
func (o *oracle) checkForm(view routeView, t *v1.Traffic) {
	w := o.world
	if !w.setting.elsewhere || t.Stable.Host != "" || w.setting.mesh != "rich" || view.name != "primary" {
		return
	}
	w.sometimes["back from elsewhere, or never there"]++
	to := view.raw["route"].([]any)[0].(map[string]any)["destination"].(map[string]any)
	if fmt.Sprint(to["host"], to["port"]) != "reviewsmap[number:9080]" {
		w.violated(14, "at rest the route's destination is %v", to)
	}
}
