// What a node of a test cluster runs of Kubernetes, in one binary: its first argument says which part it is.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	part := ""
	if len(os.Args) > 1 {
		part, os.Args = os.Args[1], os.Args[1:]
	}
	switch part {
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	case "kube-proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "certificates":
		if len(os.Args) != 4 {
			fmt.Fprintln(os.Stderr, "certificates FOLDER HOSTS NODE")
			os.Exit(2)
		}
		if err := certificates(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "the first argument must be one of: kubelet, kube-proxy, certificates")
		os.Exit(2)
	}
}
