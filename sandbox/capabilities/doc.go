// Package capabilities runs the folders of examples/ in the sandbox, each exactly as it stands, and asserts on what clients see.
//
// One control plane and one operator, with the rights of config/default, serve all tests; each example has a namespace, a Git
// repository and, where it asks for one, an ingress gateway of its own. Its applications (examples/apps) and its manifests come
// in through two GitSyncs, applied as a service account with the rights of examples/rbac.yaml. Only two things are
// replaced on the way: the address http://bookinfo.example.com, by that of the example's gateway, and bookinfo in the full names of
// Services, by the example's namespace.
//
// A test is called TestNNWhatItShows, NN being the capability's number and the example's:
//
//	func Test04UserAgent(t *testing.T) {
//		t.Parallel()
//		s := newStage(t, example{dir: "04-user-agent", apps: []string{"bookinfo.yaml"}})
//		s.pushVersion(t, "rollout.yaml", "v3")
//		s.stayIn(t, "reviews", "safari") // suspends the run in this step; s.goOn lets it go on
//		...
//	}
//
// An example whose README promises that no request fails is a walk instead, run by TestNoFailedRequests.
//
// newStage returns once the applications are available, the example is applied and its Rollouts are Healthy. Requests go out
// from a client pod of the mesh (s.get, s.load) or through the gateway (s.atGateway). What the tests find becomes
// docs/capabilities.md: `make capabilities` writes it, and a whole run of this package fails when it says something else.
package capabilities
