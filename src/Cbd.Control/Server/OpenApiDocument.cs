using System.Reflection;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.OpenApi;

namespace Cbd.Control.Server;

/// <summary>The description of the control API that the daemon serves; <c>docs/openapi.json</c> is its copy.</summary>
internal static class OpenApiDocument
{
    public const string Path = "/openapi/v1.json";

    /// <summary>The route that serves it; the name of the document is part of the path.</summary>
    public const string Route = "/openapi/{documentName}.json";

    public static void Add(IServiceCollection services) => services.AddOpenApi("v1", options =>
    {
        options.OpenApiVersion = OpenApiSpecVersion.OpenApi3_1;
        options.AddDocumentTransformer((document, _, _) =>
        {
            document.Info = new OpenApiInfo
            {
                Title = "CBD control API",
                Version = "v1",
                Description = "Spoken over HTTP on the Unix socket <run-dir>/cbdd.sock. "
                    + "Every error is problem details with a kind and one line for the operator in detail.",
            };
            // The address that was asked is the socket's placeholder name and tells nobody anything.
            document.Servers?.Clear();
            return Task.CompletedTask;
        });
    });
}
