package pipeline

import (
	"testing"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

// Versions on one host are told apart by their ports. Which of them serves is read from the route's, and a route that leads to one
// of them is not driven for another.
func TestVersionsOnPortsOfOneHost(t *testing.T) {
	const host = "api.partner.com"
	for name, tc := range map[string]struct {
		first, second uint32
		route         v1.ManagedRoute
		want          string
	}{
		"the first's port":               {80, 81, v1.ManagedRoute{Host: host, Port: 80}, "v1"},
		"the second's":                   {80, 81, v1.ManagedRoute{Host: host, Port: 81}, "v2"},
		"none is named":                  {80, 81, v1.ManagedRoute{}, ""},
		"none is named, nor is a first":  {0, 81, v1.ManagedRoute{}, "v1"},
		"the second's, no first's":       {0, 81, v1.ManagedRoute{Host: host, Port: 81}, "v2"},
		"none is named, nor is a second": {80, 0, v1.ManagedRoute{}, "v2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := partner(t, weight("half", 50, 10))
			w.edit(func(s *v1.RolloutSpec) {
				s.Versions = s.Versions[:2]
				for i, port := range []uint32{tc.first, tc.second} {
					s.Versions[i].Destination = &v1.Destination{Host: host, Port: &istio.PortSelector{Number: port}}
					w.in.Versions[s.Versions[i].Name] = Version{Found: true, Available: true, Ready: 1, Host: host, Port: port}
				}
			})
			other := v1.ManagedRoute{Key: "other", Host: host, Port: tc.first + tc.second + 1}
			tc.route.Key = "primary"
			w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{{Name: "partner", Routes: []v1.ManagedRoute{tc.route}}}
			w.decide()
			if got := w.status().Stable; got != tc.want {
				t.Fatalf("stable is %q (%s), want %q", got, w.status().Message, tc.want)
			}
			if tc.want == "" {
				return
			}
			w.in.Mesh.VirtualServices[0].Routes = append(w.in.Mesh.VirtualServices[0].Routes, other)
			w.in.Rollout.Spec.Version = map[string]string{"v1": "v2", "v2": "v1"}[tc.want]
			w.settle()
			if got := w.status().VirtualServices; len(got) != 1 || len(got[0].Routes) != 1 {
				t.Errorf("driven: %+v", got)
			}
		})
	}
}
