// Where containerd listens, unless its configuration says otherwise.
export const CONTAINERD_ADDRESS = '/run/containerd/containerd.sock'
