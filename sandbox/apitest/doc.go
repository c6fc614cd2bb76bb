// Package apitest tests the CRDs of config/crd against a real API server: each validation rule both ways, the printed
// columns, and that nothing that the API server stores fails to decode into the types of api/v1.
//
// It knows no operator: only the CRDs, the types and the API server.
package apitest
