using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Cbd.Control.Server;

/// <summary>One operation over HTTP: reads the request from path, query and body, does it, writes the answer. Thread-safe.</summary>
internal sealed class OperationEndpoint(Operation operation, CheckedControl control, VerbGate verbs)
{
    public async Task Serve(HttpContext context)
    {
        var peer = ControlServer.PeerOf(context);
        if (!operation.IsLook && peer.Refusal is { } refusal)
            throw new CbdException(CbdErrorKind.Denied, $"{operation.Name}: {refusal}");
        if (await Read(context) is not { } request)
            return;
        request.Caller = peer.Caller;
        var answer = await verbs.Do(context, operation, request, control);
        (answer as StopAnswer)?.ThrowIfStopping();
        if (operation.HasContent)
        {
            await context.Response.WriteAsJsonAsync(answer, operation.AnswerJson, contentType: null, context.RequestAborted);
            if (answer is DaemonDescription { Sent: { } sent })
            {
                await context.Response.CompleteAsync();
                sent();
            }
        }
        else
            context.Response.StatusCode = StatusCodes.Status204NoContent;
    }

    /// <summary>Null if there is no request to be done: the status says why, or the client is gone.</summary>
    private async Task<ControlRequest?> Read(HttpContext context)
    {
        var request = operation.HasBody ? await ReadBody(context) : (ControlRequest)operation.RequestJson.CreateObject!();
        if (request is null)
            return null;
        if (request is TransportTarget transport)
            transport.Transport = PathId(context, operation.PathParameters[0]);
        if (request is ItemTarget item)
            item.Id = PathId(context, operation.PathParameters[1]);
        if (operation.HasBody || ReadQuery(context.Request.Query, request))
            return request;
        context.Response.StatusCode = StatusCodes.Status400BadRequest;
        return null;
    }

    private async Task<ControlRequest?> ReadBody(HttpContext context)
    {
        if (context.Features.Get<IHttpRequestBodyDetectionFeature>()?.CanHaveBody != true)
            throw new BadHttpRequestException("it has no body; send JSON");
        if (!context.Request.HasJsonContentType())
        {
            context.Response.StatusCode = StatusCodes.Status415UnsupportedMediaType;
            return null;
        }

        try
        {
            return (ControlRequest?)await JsonSerializer.DeserializeAsync(context.Request.Body, operation.RequestJson, context.RequestAborted)
                ?? throw new BadHttpRequestException("the body is null; send an object");
        }
        catch (JsonException e)
        {
            throw new BadHttpRequestException($"the body is not the JSON it must be: {e.Message}", e);
        }
        catch (IOException e) when (e is not BadHttpRequestException)
        {
            // The client is gone.
            return null;
        }
    }

    private static int PathId(HttpContext context, string name)
    {
        var text = (string?)context.Request.RouteValues[name];
        return int.TryParse(text, CultureInfo.InvariantCulture, out var id)
            ? id
            : throw new BadHttpRequestException($"Failed to bind parameter \"int {name}\" from \"{text}\".");
    }

    /// <summary>False if a value is not right. Keys that the operation does not have say nothing.</summary>
    private bool ReadQuery(IQueryCollection query, ControlRequest request)
    {
        foreach (JsonPropertyInfo property in operation.RequestJson.Properties)
        {
            string? text = query[property.Name];
            if (string.IsNullOrEmpty(text))
                continue;
            if (property.PropertyType == typeof(bool) && bool.TryParse(text, out var flag))
                property.Set!(request, flag);
            else if (property.PropertyType == typeof(int?) && int.TryParse(text, CultureInfo.InvariantCulture, out var number))
                property.Set!(request, number);
            else
                return false;
        }

        return true;
    }
}
