package mesh

import (
	"crypto/sha256"
	"encoding/hex"
	stdjson "encoding/json"
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
)

// object is a JSON object of an Istio resource.
type object = map[string]any

// objects lists the entries of a JSON array that are objects; anything else in it is no route and left alone.
func objects(value any) []object {
	list, ok := value.([]any)
	if !ok {
		return nil
	}
	var out []object
	for _, entry := range list {
		if o, ok := entry.(object); ok {
			out = append(out, o)
		}
	}
	return out
}

// child is a nested object, nil when there is none of that name.
func child(o object, name string) object {
	c, ok := o[name].(object)
	if !ok {
		return nil
	}
	return c
}

func text(o object, name string) string {
	s, ok := o[name].(string)
	if !ok {
		return ""
	}
	return s
}

// number reads an integer however it was decoded.
func number(value any) (int64, bool) {
	switch n := value.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), true
	}
	return 0, false
}

func clone(o object) object { return runtime.DeepCopyJSON(o) }

// toRaw turns one of Istio's messages, or any value that marshals to JSON, into raw JSON.
func toRaw(message any) any {
	data, err := json.Marshal(message)
	if err != nil {
		return nil
	}
	var raw any
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil
	}
	return raw
}

// spec is an object's spec, made when it is absent.
func specOf(u *unstructured.Unstructured) object {
	if s := child(u.Object, "spec"); s != nil {
		return s
	}
	s := object{}
	u.Object["spec"] = s
	return s
}

// httpRoutes lists an object's HTTP routes without copying them.
func httpRoutes(u *unstructured.Unstructured) []object { return httpList.routes(u) }

// routeKey identifies a route: by its name, or by a hash of its match.
func routeKey(route object) string {
	if name := text(route, "name"); name != "" {
		return name
	}
	// encoding/json sorts the keys of maps.
	data, err := stdjson.Marshal(route["match"])
	if err != nil {
		data = nil
	}
	sum := sha256.Sum256(data)
	return "#" + hex.EncodeToString(sum[:4])
}

var insertedName = regexp.MustCompile(`^sluice-(fault|match|mirror)-(.+)-\d+$`)

// inserted tells what kind of copy a route is and for which Rollout it was inserted; empty for any other route.
func inserted(route object) (kind, rollout string) {
	match := insertedName.FindStringSubmatch(text(route, "name"))
	if match == nil {
		return "", ""
	}
	return match[1], match[2]
}
