package simulation

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// What spec.virtualServices may describe where Sluice makes the routes; the first is nothing.
var descriptions = []string{
	"",
	`virtualServices: [{http: [{timeout: 3s}]}]`,
	`virtualServices: [{http: [{name: api, match: [{uri: {prefix: /api}}], rewrite: {uri: /}}, {timeout: 1s}]}]`,
	`virtualServices: [{http: [{name: all, timeout: 2s}]}]`,
	`virtualServices: [{gateways: [mesh]}, {name: edge, gateways: [books], hosts: [shop.example.com], http: [{match: [{uri: {exact: /reviews}}]}]}]`,
}

// describeRoutes has the team describe the VirtualServices that Sluice makes, or others, or none. The descriptions are of HTTP.
func (w *world) describeRoutes() {
	if w.setting.mesh != "none" || w.setting.edge || w.setting.connections() {
		return
	}
	options := descriptions
	if w.setting.described {
		options = descriptions[1:]
	}
	text := options[w.rng.IntN(len(options))]
	w.editSpec(func(s *v1.RolloutSpec) {
		s.VirtualServices = parseSpec("host: reviews\n" + text).VirtualServices
	})
}

// describes tells whether status has a VirtualService that follows a description.
func (o *oracle) describes(key objectKey) bool {
	r := o.world.rollout()
	described := r != nil && slices.ContainsFunc(r.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool {
		return vs.Name == key.name && vs.Template != ""
	})
	if described {
		o.world.sometimes["described routes written"]++
	}
	return described
}

// stripDescribed leaves of such a VirtualService what people added: routes that lead elsewhere, and unknown fields.
func stripDescribed(vs map[string]any) {
	for _, field := range []string{"hosts", "gateways", "exportTo"} {
		unstructured.RemoveNestedField(vs, "spec", field)
	}
	var kept []any
	for _, route := range routesIn(vs, "http") {
		if view := viewRoute(route.(map[string]any)); !view.managed() {
			kept = append(kept, route)
		}
	}
	_ = unstructured.SetNestedSlice(vs, kept, "spec", "http")
}
