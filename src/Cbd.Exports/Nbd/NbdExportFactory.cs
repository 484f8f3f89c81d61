using Cbd.Runtime;

namespace Cbd.Exports.Nbd;

/// <summary>Makes NBD servers. Thread-safe.</summary>
/// <param name="log">Gets one line per message that an operator may want to see; called from any thread.</param>
public sealed class NbdExportFactory(Action<string>? log = null) : IExportFactory
{
    /// <inheritdoc/>
    /// <exception cref="Cbd.Memory.CbdException">The address is wrong, in use or off loopback; nothing is bound then.</exception>
    public IExport Open(string address, bool insecure) => OpenNbd(address, insecure);

    /// <summary><see cref="Open"/> with the type that also has the statistics.</summary>
    public NbdExport OpenNbd(string address, bool insecure) =>
        new(NbdListener.Bind(NbdAddress.Parse(address, insecure)), log ?? (static _ => { }));
}
