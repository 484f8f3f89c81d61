using Cbd.Memory;
using Cbd.Host;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>SIGQUIT writes the flight recorders to a file, and the daemon goes on.</summary>
internal sealed class FlightSignal
{
    private readonly FlightFiles _files;
    private readonly ILogger _logger;
    private readonly AutoResetEvent _asked = new(false);

    /// <exception cref="CbdException">No thread can be had.</exception>
    public FlightSignal(FlightFiles files, ILogger logger)
    {
        _files = files;
        _logger = logger;
        // A disk that hangs may keep it for ever: it is no thread that others need.
        NeededThread.Start("cbd-flight", Run);
    }

    /// <summary>Never waits.</summary>
    public void Handle() => _asked.Set();

    private void Run()
    {
        while (_asked.WaitOne())
        {
            try
            {
                _files.Write("SIGQUIT");
            }
            catch (CbdException e)
            {
                _logger.LogError("{Error}", e.Message);
            }
            catch (OutOfMemoryException)
            {
                _logger.LogError("there is no memory for the flight recorders");
            }
        }
    }
}
