using System.Runtime.InteropServices;
using Cbd.Memory;
using Cbd.Host;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>SIGQUIT writes the flight recorders to a file, and the daemon goes on.</summary>
internal sealed class FlightSignal : IDisposable
{
    private readonly FlightFiles _files;
    private readonly ILogger _logger;
    private readonly PosixSignalRegistration _registration;

    public FlightSignal(FlightFiles files, ILogger logger)
    {
        _files = files;
        _logger = logger;
        _registration = PosixSignalRegistration.Create(PosixSignal.SIGQUIT, Handle);
    }

    public void Dispose() => _registration.Dispose();

    private void Handle(PosixSignalContext signal)
    {
        signal.Cancel = true;
        try
        {
            _files.Write("SIGQUIT");
        }
        catch (CbdException e)
        {
            _logger.LogError("{Error}", e.Message);
        }
    }
}
