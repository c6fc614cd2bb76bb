package mesh

import (
	"strings"
	"testing"

	v1 "sluice.dev/sluice/api/v1"
)

// A step's block that names gateways is for the VirtualServices that they serve; one for all of them has to meet a route of each, so that
// none hides that another one's users are left out.
func TestMatchesOfGateways(t *testing.T) {
	const (
		inMesh    = "metadata: {name: reviews, namespace: bookinfo}\nspec: {hosts: [reviews], http: [{name: primary, match: [{uri: {prefix: /api}}], route: [{destination: {host: reviews, subset: v1}}]}]}"
		atGateway = "metadata: {name: edge, namespace: bookinfo}\nspec: {hosts: [books.example.com], gateways: [books], http: [{name: primary, match: [{uri: {prefix: /reviews}}], route: [{destination: {host: reviews, subset: v1}}]}]}"
		canary    = "sluice-match-reviews-0 -> reviews/v3; "
		both      = "primary -> reviews/v1 100, reviews/v3 0"
	)
	delegate := strings.NewReplacer("hosts: [reviews], ", "").Replace(inMesh)
	for name, tc := range map[string]struct {
		match, found string
		want         string // empty: MatchConflict
	}{
		"for the mesh, in the mesh":         {"[{uri: {prefix: /api/v2}, gateways: [mesh]}]", inMesh, canary + both},
		"for the mesh, at the gateway":      {"[{uri: {prefix: /api/v2}, gateways: [mesh]}]", atGateway, both},
		"for the gateway, in the mesh":      {"[{uri: {prefix: /reviews/v2}, gateways: [./books]}]", inMesh, both},
		"for the gateway, at the gateway":   {"[{uri: {prefix: /reviews/v2}, gateways: [bookinfo/books]}]", atGateway, canary + both},
		"for all, in the mesh":              {"[{uri: {prefix: /api/v2}}]", inMesh, canary + both},
		"for all, at the gateway":           {"[{uri: {prefix: /api/v2}}]", atGateway, ""},
		"for the gateway, not of its paths": {"[{uri: {prefix: /api/v2}, gateways: [books]}]", atGateway, ""},
		"for the gateway, in a delegate":    {"[{uri: {prefix: /api/v2}, gateways: [books]}]", delegate, canary + both},
	} {
		t.Run(name, func(t *testing.T) {
			managed := v1.ManagedVirtualService{Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}
			got, problem := VirtualService(reviewsWith(t, "CANARY weight: 0, match: "+tc.match), managed, parseAll(t, "VirtualService", tc.found)[0])
			if tc.want == "" {
				checkProblem(t, problem, v1.ReasonMatchConflict, "no request can meet both")
				return
			}
			if problem != nil || strings.Join(summary(got), "; ") != tc.want {
				t.Errorf("%v, problem %+v, want %s", summary(got), problem, tc.want)
			}
		})
	}
}
