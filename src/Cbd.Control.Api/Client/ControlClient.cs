using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Cbd.Control.Api.Client;

/// <summary>
/// A daemon, over its control socket. Thread-safe, no connection is kept. Errors arrive as the <see cref="CbdException"/>
/// that the daemon threw; <see cref="NoDaemonException"/> if none answers.
/// </summary>
public sealed class ControlClient(string socketPath) : IControl
{
    /// <inheritdoc/>
    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        byte[]? body = operation.HasBody ? JsonSerializer.SerializeToUtf8Bytes(request, ControlJson.Plain.Of<TRequest>()) : null;
        var (status, answer) = HttpExchange.Send(socketPath, operation.Method, operation.Address(request), body);
        if (status is < 200 or >= 300)
            throw Read(answer, ControlJson.Default.ControlProblem).ToException();
        return operation.WithoutContent ?? Read(answer, ControlJson.Plain.Of<TAnswer>());
    }

    private static T Read<T>(byte[] answer, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(answer, type)
                ?? throw new CbdException(CbdErrorKind.Corrupt, "the daemon answered null; are cbdctrl and cbdd of one version?");
        }
        catch (JsonException e)
        {
            throw new CbdException(CbdErrorKind.Corrupt, $"the daemon's answer is not the JSON it must be ({e.Message}); are cbdctrl and cbdd of one version?", e);
        }
    }
}
