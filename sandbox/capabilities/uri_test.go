package capabilities

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

const reviewsAtGateway, ratingsAtGateway = "http://api.example.com/reviews/0", "http://api.example.com/ratings/0"

// onRoutes: of a VirtualService for two services the Rollout moves one route, and the other stays.
func onRoutes() look {
	var before string
	return func(t *testing.T, s *stage, at string) {
		t.Helper()
		s.gateway.waitServed(t, "v1", ratingsAtGateway)
		switch at {
		case atRest:
			before = s.spec(t, "VirtualService", "api")
		case promoted:
			if a := s.atGateway(t, "http://api.example.com/details/0"); a.status != http.StatusNotFound {
				t.Errorf("a path that no route takes got %d, want 404", a.status)
			}
			after := s.spec(t, "VirtualService", "api")
			if diff := cmp.Diff(strings.Replace(before, `"subset": "v1"`, `"subset": "v3"`, 1), after); diff != "" {
				t.Errorf("the run changed more than one destination (-want +got):\n%s", diff)
			}
		case returned:
			if diff := cmp.Diff(before, s.spec(t, "VirtualService", "api")); diff != "" {
				t.Errorf("the way back left something (-before +after):\n%s", diff)
			}
		}
	}
}

// spec of an Istio object as the API server has it, as JSON.
func (s *stage) spec(t *testing.T, kind, name string) string {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(networking.SchemeGroupVersion.WithKind(kind))
	if err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: name}, object); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(object.Object["spec"], "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
