package mesh

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"

	v1 "sluice.dev/sluice/api/v1"
)

// mirrorFields are the route's own single mirror and the forms of its percentage. Istio refuses `mirror` beside `mirrors`.
var mirrorFields = []string{"mirror", "mirrorPercentage", "mirrorPercent", "mirror_percent"}

// SaveMirrors returns the managed value with each route's own mirrors noted, to be committed before `mirrors` are written.
func SaveMirrors(managed v1.ManagedVirtualService, found *unstructured.Unstructured) v1.ManagedVirtualService {
	out := managed
	out.Routes = slices.Clone(managed.Routes)
	for i := range out.Routes {
		at := slices.IndexFunc(httpRoutes(found), func(o object) bool { return routeKey(o) == out.Routes[i].Key })
		if at < 0 {
			continue
		}
		route := httpRoutes(found)[at]
		_, single := route["mirror"]
		if out.Routes[i].SavedMirror != "" && !single {
			continue
		}
		saved := savedMirrors(out.Routes[i])
		fields := mirrorFields
		if out.Routes[i].SavedMirror == "" {
			fields = append(slices.Clone(mirrorFields), "mirrors") // later on, ours stand among them
		}
		for _, field := range fields {
			delete(saved, field)
			if value, ok := route[field]; ok {
				saved[field] = value
			}
		}
		if data, err := json.Marshal(saved); err == nil {
			out.Routes[i].SavedMirror = string(data)
		}
	}
	return out
}

// savedMirrors are the mirror fields that were noted of a route; none when it has none, or none were noted.
func savedMirrors(managed v1.ManagedRoute) object {
	saved := object{}
	if err := json.Unmarshal([]byte(managed.SavedMirror), &saved); err != nil || saved == nil {
		return object{}
	}
	return saved
}

// renderMirrors adds the step's mirror beside the route's own ones, or puts those back. Until a mirror of ours was written
// (SavedMirror is empty) the route's mirrors are left alone.
func renderMirrors(r *v1.Rollout, managed v1.ManagedRoute, route, base object) {
	traffic := r.Status.Traffic
	if managed.SavedMirror == "" && traffic.Mirror == nil {
		return
	}
	saved := savedMirrors(managed)
	mirrors := ownMirrors(r, route, saved)
	if traffic.Mirror == nil || traffic.Canary == nil {
		setMirrors(route, mirrors)
		for _, field := range mirrorFields {
			if value, ok := saved[field]; ok && len(mirrors) == 0 {
				route[field] = value
			}
		}
		return
	}
	if single, ok := saved["mirror"].(object); ok {
		mirrors = append(mirrors, object{"destination": single, "percentage": object{"value": singlePercentage(saved)}})
	}
	for _, field := range mirrorFields {
		delete(route, field)
	}
	destination := child(toSubset(base, traffic.Canary.Subset), "destination")
	setMirrors(route, append(mirrors, object{
		"destination": destination, "percentage": object{"value": int64(traffic.Mirror.Percentage)},
	}))
}

// ownMirrors are the entries of `mirrors` that are not ours: those that were there before, and those to other hosts that came
// since. While a saved single mirror stands among them it is left out: it is put in its own place.
func ownMirrors(r *v1.Rollout, route, saved object) []any {
	host := HostKey(r.Spec.Host, r.Namespace)
	before := objects(saved["mirrors"])
	single := child(saved, "mirror")
	var out []any
	for _, m := range before {
		out = append(out, m)
	}
	for _, m := range objects(route["mirrors"]) {
		destination := child(m, "destination")
		known := slices.ContainsFunc(before, func(o object) bool { return sameJSON(o, m) })
		if known || HostKey(text(destination, "host"), r.Namespace) == host || (single != nil && sameJSON(single, destination)) {
			continue
		}
		out = append(out, m)
	}
	return out
}

func setMirrors(route object, mirrors []any) {
	if len(mirrors) == 0 {
		delete(route, "mirrors")
		return
	}
	route["mirrors"] = mirrors
}

// singlePercentage is that of a `mirror`: all requests unless it says otherwise.
func singlePercentage(saved object) any {
	if p := child(saved, "mirrorPercentage"); p != nil && p["value"] != nil {
		return p["value"]
	}
	for _, field := range []string{"mirrorPercent", "mirror_percent"} {
		if n, ok := number(saved[field]); ok {
			return n
		}
	}
	return int64(100)
}

func sameJSON(a, b any) bool {
	left, leftErr := json.Marshal(a)
	right, rightErr := json.Marshal(b)
	return leftErr == nil && rightErr == nil && string(left) == string(right)
}
