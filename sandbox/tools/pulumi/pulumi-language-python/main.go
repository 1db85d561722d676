// A small language host for Python: it runs a program as the official one does, which comes only as a
// download. It starts the official launcher, which lies beside it, as a child; plugins are not looked up.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

const userHasBeenTold = 32 // exit code of a program that has said itself what is wrong

type host struct {
	pulumirpc.UnimplementedLanguageRuntimeServer
	engine    string
	cancelled context.Context
	cancel    context.CancelFunc
}

func (h *host) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version.Version}, nil
}

// None: the engine asks for a provider's plugin when the program makes the provider.
func (h *host) GetRequiredPackages(
	context.Context, *pulumirpc.GetRequiredPackagesRequest,
) (*pulumirpc.GetRequiredPackagesResponse, error) {
	return &pulumirpc.GetRequiredPackagesResponse{}, nil
}

func (h *host) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	h.cancel()
	return &emptypb.Empty{}, nil
}

func (h *host) Run(ctx context.Context, req *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	config, err := json.Marshal(req.Config)
	if err != nil {
		return nil, err
	}
	secretKeys, err := json.Marshal(req.ConfigSecretKeys)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	virtualenv, _ := req.Info.Options.AsMap()["virtualenv"].(string)
	python, err := toolchain.ResolveToolchain(toolchain.PythonOptions{
		Toolchain:  toolchain.Pip,
		Root:       req.Info.RootDirectory,
		ProgramDir: req.Info.ProgramDirectory,
		Virtualenv: virtualenv,
	})
	if err != nil {
		return nil, err
	}
	if err := python.ValidateVenv(ctx); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx) // also when the engine says Cancel
	defer stop()
	defer context.AfterFunc(h.cancelled, stop)()
	program, err := python.Command(ctx, append([]string{
		filepath.Join(filepath.Dir(self), "pulumi-language-python-exec"),
		"--monitor", req.MonitorAddress,
		"--engine", h.engine,
		"--project", req.Project,
		"--root_directory", req.Info.RootDirectory,
		"--stack", req.Stack,
		"--pwd", req.Pwd,
		"--dry_run", strconv.FormatBool(req.DryRun),
		"--parallel", strconv.Itoa(int(req.Parallel)),
		"--organization", req.Organization,
		req.Info.EntryPoint,
	}, req.Args...)...)
	if err != nil {
		return nil, err
	}
	if program.Env == nil {
		program.Env = os.Environ()
	}
	if len(req.Config) > 0 {
		program.Env = append(program.Env, "PULUMI_CONFIG="+string(config))
	}
	if len(req.ConfigSecretKeys) > 0 {
		program.Env = append(program.Env, "PULUMI_CONFIG_SECRET_KEYS="+string(secretKeys))
	}
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
	program.WaitDelay = 5 * time.Second // then it is killed
	var failed *exec.ExitError
	switch err := program.Run(); {
	case err == nil:
		return &pulumirpc.RunResponse{}, nil
	case errors.As(err, &failed) && failed.ExitCode() == userHasBeenTold:
		return &pulumirpc.RunResponse{Bail: true}, nil
	case errors.As(err, &failed):
		text := fmt.Sprintf("program exited with non-zero exit code: %d", failed.ExitCode())
		return &pulumirpc.RunResponse{Error: text}, nil
	default:
		return nil, err
	}
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	interrupted, _ := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	engine := os.Args[len(os.Args)-1] // its address
	stop := make(chan bool)
	go func() {
		<-interrupted.Done()
		cancel()
		close(stop)
	}()
	if err := rpcutil.Healthcheck(interrupted, engine, 5*time.Minute, cancel); err != nil {
		cmdutil.Exit(err) // the engine is gone, or was never there
	}
	served, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: stop,
		Init: func(server *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(server, &host{engine: engine, cancelled: ctx, cancel: cancel})
			return nil
		},
	})
	if err != nil {
		cmdutil.Exit(err)
	}
	fmt.Println(served.Port)
	if err := <-served.Done; err != nil {
		cmdutil.Exit(err)
	}
}
