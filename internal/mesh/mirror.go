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
	if managed.Created {
		return out // its routes have none of their own that would be put back
	}
	out.Routes = slices.Clone(managed.Routes)
	for i := range out.Routes {
		at := slices.IndexFunc(httpRoutes(found), func(o object) bool { return routeKey(o) == out.Routes[i].Key })
		if at < 0 {
			continue
		}
		out.Routes[i].SavedMirror = saveMirror(out.Routes[i], httpRoutes(found)[at])
	}
	return out
}

// saveMirror notes a route's mirrors. While ours may stand among `mirrors`, only a single one that came since is noted.
func saveMirror(managed v1.ManagedRoute, route object) string {
	saved, fields := savedMirrors(managed), mirrorFields
	if managed.SavedMirror == "" || !mayHoldOurs(route, saved) {
		saved, fields = object{}, append(slices.Clone(mirrorFields), "mirrors")
	} else if _, single := route["mirror"]; !single {
		return managed.SavedMirror
	}
	for _, field := range fields {
		delete(saved, field)
		if value, ok := route[field]; ok {
			saved[field] = value
		}
	}
	data, err := json.Marshal(saved)
	if err != nil {
		return managed.SavedMirror
	}
	return string(data)
}

// mayHoldOurs tells whether a mirror stands that may be ours, which always name a subset, or that we moved there. A noted one
// accounts for one that stands: ours may be just like it.
func mayHoldOurs(route, saved object) bool {
	single := saved["mirror"]
	standing := slices.Clone(objects(route["mirrors"]))
	for _, known := range objects(saved["mirrors"]) {
		if at := slices.IndexFunc(standing, func(o object) bool { return sameJSON(o, known) }); at >= 0 {
			standing = slices.Delete(standing, at, at+1)
		}
	}
	return slices.ContainsFunc(standing, func(m object) bool {
		moved := single != nil && sameJSON(m["destination"], single)
		return moved || text(child(m, "destination"), "subset") != ""
	})
}

// savedMirrors are the mirror fields that were noted of a route; none when it has none, or none were noted.
func savedMirrors(managed v1.ManagedRoute) object {
	saved := object{}
	if err := json.Unmarshal([]byte(managed.SavedMirror), &saved); err != nil || saved == nil {
		return object{}
	}
	return saved
}

// renderMirrors adds the step's mirror beside the route's own ones, or puts those back; one that stands apart has copies of the
// route. Where no mirror of ours stands and none
// is wanted, the route's mirrors are left alone: whoever changed them since may.
func renderMirrors(r *v1.Rollout, managed v1.ManagedRoute, route, base object) {
	traffic := r.Status.Traffic
	wanted := traffic.Mirror != nil && !traffic.MirrorsApart() && traffic.Canary != nil
	saved := savedMirrors(managed)
	mirrors, ours := splitMirrors(r, route, saved)
	if !wanted && (managed.SavedMirror == "" || !ours) {
		return
	}
	single, hasSingle := saved["mirror"].(object)
	if hasSingle && (wanted || len(mirrors) > 0) {
		mirrors = append(mirrors, object{"destination": single, "percentage": object{"value": singlePercentage(saved)}})
	}
	if wanted {
		mirrors = append(mirrors, stepMirror(r, managed, base))
	}
	for _, field := range append([]string{"mirrors"}, mirrorFields...) {
		delete(route, field)
		if value, ok := saved[field]; ok && len(mirrors) == 0 {
			route[field] = value
		}
	}
	if len(mirrors) > 0 {
		route["mirrors"] = mirrors
	}
}

// stepMirror is the entry of `mirrors` that the traffic asks for.
func stepMirror(r *v1.Rollout, managed v1.ManagedRoute, base object) object {
	mirror := r.Status.Traffic.Mirror
	destination := child(toTarget(r, managed, base, *r.Status.Traffic.Canary), "destination")
	if mirror.Host != "" {
		destination = object{"host": mirror.Host}
	}
	return object{"destination": destination, "percentage": object{"value": int64(mirror.Percentage)}}
}

// splitMirrors gives the entries of `mirrors` that are not ours: those that were there before, and those to other hosts that came
// since; and whether ours, or a saved single mirror that we moved there, stands among them.
func splitMirrors(r *v1.Rollout, route, saved object) (others []any, ours bool) {
	host := HostKey(r.Spec.Host, r.Namespace)
	standing := objects(route["mirrors"])
	take := func(is func(object) bool) bool {
		at := slices.IndexFunc(standing, is)
		if at >= 0 {
			standing = slices.Delete(standing, at, at+1)
		}
		return at >= 0
	}
	for _, m := range objects(saved["mirrors"]) {
		others = append(others, m)
		take(func(o object) bool { return sameJSON(o, m) })
	}
	if single := child(saved, "mirror"); single != nil {
		ours = take(func(o object) bool { return sameJSON(o["destination"], single) })
	}
	for _, m := range standing {
		if HostKey(text(child(m, "destination"), "host"), r.Namespace) == host {
			ours = true
			continue
		}
		others = append(others, m)
	}
	return others, ours
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
