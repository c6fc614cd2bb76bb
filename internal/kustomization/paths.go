package kustomization

import (
	"fmt"
	"strings"
)

// maxPath bounds the elements of a path to a field. kustomize walks and makes fields one within the other, which takes more than the
// square of their number, so that one long path would hold up all renderings for good.
const maxPath = 100

// pathKeys are the keys under which configurations, replacements and JSON patches have paths, in lower case: kustomize takes any.
var pathKeys = map[string]bool{"path": true, "from": true, "fieldpath": true, "fieldpaths": true}

// checkPaths refuses a path to a field that nobody would write.
func (f file) checkPaths() error {
	for _, document := range f.documents {
		if err := checkPaths(document, ""); err != nil {
			return err
		}
	}
	return checkPaths(f.list, "")
}

func checkPaths(value any, key string) error {
	switch value := value.(type) {
	case string:
		if n := strings.Count(value, "/") + strings.Count(value, "."); pathKeys[strings.ToLower(key)] && n > maxPath {
			return fmt.Errorf("%s: %.40s… has %d elements: at most %d are allowed", key, value, n, maxPath)
		}
	case []any:
		for _, item := range value {
			if err := checkPaths(item, key); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, item := range value {
			if err := checkPaths(item, key); err != nil {
				return err
			}
		}
	}
	return nil
}
