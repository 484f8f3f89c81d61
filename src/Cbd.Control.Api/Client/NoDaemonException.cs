namespace Cbd.Control.Api.Client;

/// <summary>No daemon answers on a run directory; has an exit code of its own.</summary>
public sealed class NoDaemonException(string socketPath, string reason) : CbdException(
    CbdErrorKind.Failed,
    $"no daemon answers on '{socketPath}' ({reason}); start one with: cbdd --run-dir {Path.GetDirectoryName(socketPath)}");
