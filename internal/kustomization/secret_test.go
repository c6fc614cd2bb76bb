package kustomization

import (
	"strings"
	"testing"
)

// What kustomize quotes of what it can not read, which may be a Secret's, is not in errors.
func TestErrorsHoldNoContent(t *testing.T) {
	const secret = "-- app/a.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {token: hunter2}\n"
	for name, tree := range map[string]string{
		"a replacement in a scalar": "resources: [a.yaml]\nreplacements: [{sourceValue: x, targets: [{select: {kind: Secret}, fieldPaths: [stringData.token.x], options: {create: true}}]}]\n",
		"from within a scalar":      "resources: [a.yaml]\nreplacements: [{source: {kind: Secret, fieldPath: stringData.token.x}, targets: [{select: {kind: Secret}, fieldPaths: [metadata.name]}]}]\n",
		"a label in a scalar":       "resources: [a.yaml]\nlabels: [{pairs: {a: b}, fields: [{path: stringData/token/x, create: true}]}]\n",
		"a merge patch":             "resources: [a.yaml]\npatches: [{patch: '{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: [x]}'}]\n",
		"a patch with the secret":   "resources: [a.yaml]\npatches: [{patch: '{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: hunter2}'}]\n",
		"a JSON patch":              "resources: [a.yaml]\npatches: [{target: {kind: Secret}, patch: '[{\"op\": \"add\", \"path\": \"/stringData/token/x\", \"value\": \"hunter2\"}]'}]\n",
		"a JSON patch that tests":   "resources: [a.yaml]\npatches: [{target: {kind: Secret}, patch: '[{\"op\": \"test\", \"path\": \"/stringData/token\", \"value\": \"hunter2!\"}]'}]\n",
		"an image":                  "resources: [a.yaml]\nconfigurations: [c.yaml]\nimages: [{name: hunter2, newTag: x}]\n-- app/c.yaml --\nimages: [{path: stringData/token/x, create: true}]\n",
		"a prefix":                  "resources: [a.yaml]\nconfigurations: [c.yaml]\nnamePrefix: x-\n-- app/c.yaml --\nnamePrefix: [{path: stringData/token/x, create: true}]\n",
		"a reference":               "resources: [a.yaml, b.yaml]\nconfigurations: [c.yaml]\nnamePrefix: x-\n-- app/b.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: hunter2}\n-- app/c.yaml --\nnameReference: [{kind: ConfigMap, fieldSpecs: [{kind: Secret, path: stringData/token/x}]}]\n",
		"a reference to a mapping":  "resources: [a.yaml, b.yaml]\nconfigurations: [c.yaml]\nnamePrefix: x-\n-- app/b.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: hunter2}\n-- app/c.yaml --\nnameReference: [{kind: ConfigMap, fieldSpecs: [{kind: Secret, path: stringData}]}]\n",
		"a bad line":                "secretGenerator: [{name: g, envs: [env]}]\n-- app/env --\nKEY=hunter2\xff\n",
		"a bad literal":             "secretGenerator: [{name: g, literals: [hunter2]}]\n",
		"replicas":                  "resources: [a.yaml]\nconfigurations: [c.yaml]\nreplicas: [{name: a, count: 3}]\n-- app/c.yaml --\nreplicas: [{path: stringData/token/x, create: true, kind: Secret}]\n",
		"a namespace":               "resources: [a.yaml]\nconfigurations: [c.yaml]\nnamespace: other\n-- app/c.yaml --\nnamespace: [{path: stringData/token/x, create: true, kind: Secret}]\n",
		"a name that is a mapping":  "resources: [a.yaml, b.yaml]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: {x: hunter2}}\n",
		"a Secret without a name":   "resources: [a.yaml, b.yaml]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"stringData\": {\"token\": \"hunter2\"}}'}}\n",
		"an object without a kind":  "resources: [a.yaml, b.yaml]\n-- app/b.yaml --\napiVersion: v1\nmetadata: {name: b, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"stringData\": {\"token\": \"hunter2\"}}'}}\n",
		"null in a list":            "resources: [a.yaml, b.yaml]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {token: hunter2}\nlist: [null]\n",
		"not binary":                "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {token: !!binary 'hunter2!'}\n",
		"no number":                 "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {token: !!int hunter2}\n",
		"a key that is no text":     "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {? [hunter2] : a}\n",
		"no merge":                  "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {<<: hunter2}\n",
		"no alias":                  "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {token: *hunter2}\n",
		"metadata is none":          "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: hunter2\n",
		"labels are none":           "resources: [a.yaml, b.yaml]\nlabels: [{pairs: {a: b}}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b, labels: hunter2}\n",
		"annotations are none":      "resources: [a.yaml, b.yaml]\ncommonAnnotations: {a: b}\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b, annotations: {x: {y: hunter2}}}\n",
		"data is none":              "resources: [a.yaml, b.yaml]\nsecretGenerator: [{name: b, behavior: merge, literals: [a=b]}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\ndata: hunter2\n",
		"not base64":                "resources: [a.yaml, b.yaml]\nsecretGenerator: [{name: b, behavior: merge, literals: [a=b]}]\n-- app/b.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\ndata: {x: 'hunter2!'}\n",
	} {
		rendered, err := Render(t.Context(), treeOf("-- app/kustomization.yaml --\n"+tree+secret), "app")
		t.Logf("%s: %v (%d objects)", name, err, len(rendered.Objects))
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
