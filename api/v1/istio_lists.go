package v1

import istio "istio.io/api/networking/v1alpha3"

// HTTPMatches are Istio's HTTPMatchRequests, any of which matches. A named type, since Istio's messages must be copied by their own DeepCopy.
type HTTPMatches []*istio.HTTPMatchRequest

// L4Matches are Istio's L4MatchAttributes.
type L4Matches []*istio.L4MatchAttributes

// TLSMatches are Istio's TLSMatchAttributes.
type TLSMatches []*istio.TLSMatchAttributes

// DeepCopyInto copies each message.
func (in HTTPMatches) DeepCopyInto(out *HTTPMatches) { *out = copyMessages(in) }

// DeepCopy copies each message.
func (in HTTPMatches) DeepCopy() HTTPMatches { return copyMessages(in) }

// DeepCopyInto copies each message.
func (in L4Matches) DeepCopyInto(out *L4Matches) { *out = copyMessages(in) }

// DeepCopy copies each message.
func (in L4Matches) DeepCopy() L4Matches { return copyMessages(in) }

// DeepCopyInto copies each message.
func (in TLSMatches) DeepCopyInto(out *TLSMatches) { *out = copyMessages(in) }

// DeepCopy copies each message.
func (in TLSMatches) DeepCopy() TLSMatches { return copyMessages(in) }

func copyMessages[T interface{ DeepCopy() T }](in []T) []T {
	if in == nil {
		return nil
	}
	out := make([]T, len(in))
	for i := range in {
		out[i] = in[i].DeepCopy()
	}
	return out
}
