package v1

import "encoding/json"

// CanonicalJSON is the value's JSON with sorted keys and without white space, the same in every process: Istio's messages marshal
// with varying white space and can't be compared by reflection. A value that does not marshal gives the error's text.
func CanonicalJSON(value any) []byte {
	first, err := json.Marshal(value)
	if err != nil {
		return []byte(err.Error())
	}
	var tree any
	if err := json.Unmarshal(first, &tree); err != nil {
		return first
	}
	canonical, err := json.Marshal(tree)
	if err != nil {
		return first
	}
	return canonical
}
