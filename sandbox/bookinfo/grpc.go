package bookinfo

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// EchoMethod is the method that an app answers at a port for gRPC: a
// StringValue comes back with the app's version and a space before it.
const EchoMethod = "/sandbox.Echo/Say"

// ServeGRPC serves EchoMethod until its listener ends. Misbehaving, it answers
// with the status UNAVAILABLE.
func (a *App) ServeGRPC(l net.Listener) {
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "sandbox.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: a.say}},
	}, a)
	_ = s.Serve(l) // it ends with the listener
	s.Stop()
}

func (a *App) say(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC's own order
	request := &wrapperspb.StringValue{}
	if err := decode(request); err != nil {
		return nil, err
	}
	if !a.mayAnswer(ctx) {
		return nil, status.Error(codes.Unavailable, "misbehaving as told")
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-app-version", a.options.Version)); err != nil {
		return nil, err
	}
	return wrapperspb.String(a.options.Version + " " + request.GetValue()), nil
}
