// The controllers of cert-manager that the cluster case needs, from cert-manager's own module: its approver, the issuers of
// type CA and their signer. The command of cert-manager itself lies in a module that no proxy serves.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
)

// Those of cert-manager's controllers that run here, by the names under which they register themselves.
var names = []string{approver.ControllerName, ca.CRControllerName, issuers.ControllerName, clusterissuers.ControllerName}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "whom to ask, and as whom")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(klog.NewContext(ctx, klog.Background()), *kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "cert-manager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         kubeconfig,
		KubernetesAPIQPS:   50,
		KubernetesAPIBurst: 100,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: "cert-manager"},
	})
	if err != nil {
		return err
	}
	var ready []controller.Interface
	for _, name := range names {
		construct, ok := controller.Known()[name]
		if !ok {
			return fmt.Errorf("there is no controller %s", name)
		}
		made, err := construct(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ready = append(ready, made)
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	var wait sync.WaitGroup
	failed := make(chan error, len(ready))
	for number, one := range ready {
		wait.Go(func() {
			if err := one.Run(4, ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", names[number], err)
			}
		})
	}
	fmt.Println("running")
	select {
	case <-ctx.Done():
		wait.Wait()
		return nil
	case err := <-failed:
		return err
	}
}
