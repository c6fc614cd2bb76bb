package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const kubeconfig = `
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts:
- {name: here, context: {cluster: c, namespace: team}}
- {name: there, context: {cluster: c, namespace: other}}
`

// What names no namespace is in that of -n, else of the kubeconfig's context, else in default, as with kubectl.
func TestNamespace(t *testing.T) {
	offline(t)
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	for command, want := range map[string]string{
		"plan -f ../../examples/reviews --to v3":                                              "Rollout team/reviews: v1 → v3",
		"plan -f ../../examples/reviews --to v3 --context there":                              "Rollout other/reviews: v1 → v3",
		"plan -f ../../examples/reviews --to v3 -n mine":                                      "Rollout mine/reviews: v1 → v3",
		"lint -f ../lint/testdata/gate-blind.bad.yaml":                                        "taken to be in team: -n names another",
		"lint -f ../lint/testdata/schema.bad.yaml -n mine":                                    "1 object, 1 error, 0 warnings\n",
		"init reviews -f testdata/service -f ../../examples/adopt/mesh.yaml":                  "what namespace team has",
		"init reviews -f testdata/service -f ../../examples/adopt/mesh.yaml --namespace mine": "what namespace mine has",
	} {
		text, problems, _ := execute(nil, strings.Fields(command)...)
		if said := text + problems; !strings.Contains(said, want) {
			t.Errorf("%s does not say %q:\n%s", command, want, said)
		}
	}
}

// A kubeconfig that can not be read is in nobody's way who names the namespace.
func TestBrokenKubeconfig(t *testing.T) {
	offline(t)
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("contexts: nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	const good = "../lint/testdata/file.good.yaml"
	if _, problems, code := execute(nil, "lint", "-f", good); code != 1 || !strings.Contains(problems, "unless -n names one") {
		t.Errorf("exit code %d, %s; want 1 and what would be right", code, problems)
	}
	if _, problems, code := execute(nil, "lint", "-f", good, "-n", "shop"); code != 0 {
		t.Errorf("exit code %d: %s", code, problems)
	}
}
