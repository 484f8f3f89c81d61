using Cbd.Disks;

namespace Cbd.Control.Server;

/// <summary>
/// The gate in front of a host: every number and text of a request, wherever it came from (socket, start-up verbs,
/// restore), is in its range before the host sees it.
/// </summary>
internal sealed class CheckedControl(IControl inner) : IControl
{
    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        operation.Check(request);
        // The words of faults are the disks'.
        if (((request as StartBackendOptions)?.Faults ?? (request as FaultsRequest)?.Faults) is { } faults)
            _ = FaultSpec.ParseAll(faults);
        return inner.Execute(operation, request);
    }
}
