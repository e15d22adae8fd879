// The control plane of a test cluster in one binary: its first argument, or the name it is called by, says which part
// it is. One binary because the parts share nearly all of their code: 140 MB instead of 400, and one link.
package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/client-go/util/cert"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	arguments := os.Args
	if !run(filepath.Base(arguments[0]), arguments) && (len(arguments) < 2 || !run(arguments[1], arguments[1:])) {
		fmt.Fprintln(os.Stderr, "the first argument must be one of: etcd, kube-apiserver, kube-controller-manager, "+
			"kube-scheduler, certificate")
		os.Exit(2)
	}
}

// run returns false where there is no such part.
func run(part string, arguments []string) bool {
	os.Args = arguments
	switch part {
	case "etcd":
		etcdmain.Main(arguments)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "certificate":
		if err := certificate(arguments[1], arguments[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		return false
	}
	return true
}

// certificate writes a certificate for 127.0.0.1, its authority's behind it, and its key, as PEM files.
func certificate(certificateFile, keyFile string) error {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	chain, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, names)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certificateFile, chain, 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, key, 0o600)
}
