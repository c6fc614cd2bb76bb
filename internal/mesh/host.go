package mesh

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	v1 "sluice.dev/sluice/api/v1"
)

// Problem is why something can not be rendered: a Stalled reason of v1 and a message that says what would be right.
type Problem struct{ Reason, Message string }

// HostKey makes hosts comparable, as v1.HostKey.
func HostKey(host, namespace string) string { return v1.HostKey(host, namespace) }

// ServiceOf tells which Service a host names; false when it is no Service's name.
func ServiceOf(host, namespace string) (name, serviceNamespace string, ok bool) {
	labels, isService := strings.CutSuffix(HostKey(host, namespace), "."+v1.ClusterDomain)
	name, serviceNamespace, dotted := strings.Cut(labels, ".")
	if !isService || !dotted || name == "" || strings.Contains(serviceNamespace, ".") {
		return "", "", false
	}
	return name, serviceNamespace, true
}

// Wildcard tells whether a host stands for others, as *.example.com does; "*" alone, which stands for all, is none here.
func Wildcard(host string) bool { return len(host) > 1 && host[0] == '*' }

// covers tells whether a host is one that a wildcard stands for.
func covers(wildcard, host string) bool {
	return Wildcard(wildcard) && strings.HasSuffix(host, wildcard[1:])
}

var notLabel = regexp.MustCompile(`[^a-z0-9-]+`)

// SubsetName is the subset of a version that names none: the version itself if it is a DNS-1123 label, else sanitised and told
// apart by six hex digits of its hash ("1.4.2" becomes "1-4-2-9f3c1a").
func SubsetName(version string) string {
	if len(validation.IsDNS1123Label(version)) == 0 {
		return version
	}
	sum := sha256.Sum256([]byte(version))
	const hashLength = 6
	clean := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(version), "-"), "-")
	if most := validation.DNS1123LabelMaxLength - hashLength - 1; len(clean) > most {
		clean = strings.TrimRight(clean[:most], "-")
	}
	if clean == "" {
		clean = "v"
	}
	return clean + "-" + hex.EncodeToString(sum[:])[:hashLength]
}
